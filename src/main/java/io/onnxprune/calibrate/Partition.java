// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Program.Value;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Predicate;

/**
 * Cuts a lowered program wherever only a single value of the stream is alive. Later applications depend on earlier ones
 * only through this value. In a decoder these are the values of the residual stream.
 */
final class Partition {
    private final DataFlow flow;
    private final Value logits;

    Partition(DataFlow flow, Value logits) {
        this.flow = flow;
        this.logits = logits;
    }

    /**
     * The stream applications between two cuts.
     *
     * @param ops the applications, in order of execution
     * @param input the value at the first cut; null for the first piece
     * @param output the value at the second cut
     */
    record Piece(List<Op> ops, Value input, Value output) {
        /** This piece joined with the next one. */
        Piece join(Piece next) {
            List<Op> all = new ArrayList<>(ops);
            all.addAll(next.ops);
            return new Piece(all, input, next.output);
        }
    }

    /** The smallest pieces with weights, in order of execution. A program without cuts is one piece. */
    List<Piece> pieces() {
        List<Op> ops = flow.streamOps();
        Map<Op, Integer> position = new HashMap<>();
        ops.forEach(op -> position.put(op, position.size()));
        Map<Integer, List<Value>> lastUsed = new HashMap<>();
        Set<Value> alive = new LinkedHashSet<>();
        for (Op op : ops) {
            for (Value value : op.outputs()) {
                int last = flow.isStream(value) ? lastUse(value, position) : -1;
                if (last > position.get(op)) {
                    lastUsed.computeIfAbsent(last, key -> new ArrayList<>()).add(value);
                }
            }
        }
        List<Piece> pieces = new ArrayList<>();
        Value input = null;
        boolean hasWeights = false;
        int start = 0;
        for (int i = 0; i + 1 < ops.size(); i++) {
            alive.removeAll(lastUsed.getOrDefault(i, List.of()));
            for (Value value : ops.get(i).outputs()) {
                if (flow.isStream(value) && lastUse(value, position) > i) {
                    alive.add(value);
                }
            }
            Value only = alive.size() == 1 ? alive.iterator().next() : null;
            hasWeights |= flow.usesWeights(ops.get(i));
            if (only != null && only != input && hasWeights) {
                pieces.add(new Piece(ops.subList(start, i + 1), input, only));
                input = only;
                start = i + 1;
                hasWeights = false;
            }
        }
        pieces.add(new Piece(ops.subList(start, ops.size()), input, logits));
        return pieces;
    }

    private int lastUse(Value value, Map<Op, Integer> position) {
        int last = value == logits ? position.size() : -1;
        for (Use use : value.uses()) {
            last = Math.max(last, position.getOrDefault(use.op(), -1));
        }
        return last;
    }

    /** Joins neighbouring pieces as long as the joined piece {@code fits}. */
    static List<Piece> join(List<Piece> pieces, Predicate<Piece> fits) {
        List<Piece> joined = new ArrayList<>();
        for (Piece piece : pieces) {
            Piece last = joined.isEmpty() ? null : joined.get(joined.size() - 1);
            Piece longer = last == null ? null : last.join(piece);
            if (longer != null && fits.test(longer)) {
                joined.set(joined.size() - 1, longer);
            } else {
                joined.add(piece);
            }
        }
        return joined;
    }
}
