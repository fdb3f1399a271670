// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.dims.DimensionAnalysis;
import io.onnxprune.dims.ResidualStream.Block;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Program;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Program.Value;
import java.util.ArrayDeque;
import java.util.BitSet;
import java.util.Collection;
import java.util.Deque;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;

/**
 * What disappears with residual blocks, and which blocks must stay. A block takes along the graph outputs that are
 * computed from it alone, such as its cache. What another block reads too stays as long as that block does, such as
 * keys and values that a later layer shares.
 */
public final class BlockRemoval {
    private final Program program;
    private final DimensionAnalysis analysis;
    private final List<Block> blocks;
    private final Map<Op, BitSet> owners = new LinkedHashMap<>();
    private final Map<Op, Integer> indexByAdd = new HashMap<>();
    private final Map<Value, Set<Op>> feeders = new LinkedHashMap<>();
    private final String[] obstacles;
    private final BitSet cached = new BitSet();

    private BlockRemoval(Structure structure) {
        analysis = structure.analysis();
        program = analysis.program();
        blocks = structure.stream().blocks();
        obstacles = new String[blocks.size()];
        for (int i = 0; i < blocks.size(); i++) {
            obstacles[i] = blocks.get(i).pin();
            indexByAdd.put(blocks.get(i).add(), i);
            for (Op op : blocks.get(i).ops()) {
                owners.computeIfAbsent(op, key -> new BitSet()).set(i);
            }
        }
        program.outputs().forEach(output -> feeders.put(output, feeders(output)));
        findObstacles();
        findCaches();
    }

    /** Analyses all blocks of a model. */
    public static BlockRemoval of(Structure structure) {
        return new BlockRemoval(structure);
    }

    /** The reason why the block at {@code index} cannot be removed; null when it can. */
    public String obstacle(int index) {
        return obstacles[index];
    }

    /** The applications that only the given blocks contain. */
    public Set<Op> dropped(BitSet removed) {
        Set<Op> dropped = new LinkedHashSet<>();
        owners.forEach((op, blocksOfOp) -> {
            if (covers(removed, blocksOfOp)) {
                dropped.add(op);
            }
        });
        return dropped;
    }

    /** The graph outputs that are computed from the given blocks alone. */
    public Set<Value> droppedOutputs(BitSet removed) {
        Set<Value> dropped = new LinkedHashSet<>();
        feeders.forEach((output, sources) -> {
            boolean all = sources.stream().allMatch(op -> owners.containsKey(op) && covers(removed, owners.get(op)));
            if (all && !sources.isEmpty()) {
                dropped.add(output);
            }
        });
        return dropped;
    }

    /**
     * Whether no block with a cache would be left, although something that stays, such as the positions, is computed
     * from the length of a cache.
     */
    boolean losesLengths(BitSet removed) {
        return !cached.isEmpty() && covers(removed, cached);
    }

    private static boolean covers(BitSet all, BitSet part) {
        BitSet missing = (BitSet) part.clone();
        missing.andNot(all);
        return missing.isEmpty();
    }

    /** The applications of blocks, and sums of the stream, from which a graph output is computed by other operators. */
    private Set<Op> feeders(Value output) {
        Set<Op> found = new HashSet<>();
        Set<Value> seen = new HashSet<>();
        Deque<Value> open = new ArrayDeque<>(List.of(output));
        while (!open.isEmpty()) {
            Value value = open.pop();
            Op producer = value.producer();
            if (producer == null || !seen.add(value)) {
                continue;
            }
            if (owners.containsKey(producer) || indexByAdd.containsKey(producer)) {
                found.add(producer);
            } else {
                open.addAll(sources(value));
            }
        }
        return found;
    }

    /** The values that a computed value needs: the operands of its operator, or what the branches of an If yield. */
    private Collection<Value> sources(Value value) {
        Op producer = value.producer();
        List<Value> operands =
                producer.inputs().stream().filter(Objects::nonNull).toList();
        if (!producer.node().is("If")) {
            return operands;
        }
        Set<Value> all = new LinkedHashSet<>(operands);
        int index = producer.outputs().indexOf(value);
        program.branchOutputs(producer.node()).forEach(yields -> all.add(yields.get(index)));
        return all;
    }

    /** The values that the remaining graph outputs need without the given blocks. */
    private Set<Value> needed(BitSet removed) {
        Set<Value> kept = new LinkedHashSet<>(program.outputs());
        kept.removeAll(droppedOutputs(removed));
        Set<Value> needed = new LinkedHashSet<>();
        Deque<Value> open = new ArrayDeque<>(kept);
        while (!open.isEmpty()) {
            Value value = open.pop();
            if (!needed.add(value) || value.producer() == null) {
                continue;
            }
            Integer block = indexByAdd.get(value.producer());
            if (block != null && removed.get(block)) {
                open.push(blocks.get(block).base());
            } else {
                open.addAll(sources(value));
            }
        }
        return needed;
    }

    /** Without some blocks, no layer that only they contain may be needed. A normalisation may stay for its shape. */
    private void findObstacles() {
        for (BitSet together : new LinkedHashSet<>(owners.values())) {
            Set<Value> needed = needed(together);
            owners.forEach((op, blocksOfOp) -> {
                boolean read = blocksOfOp.equals(together)
                        && hasWeightOrCache(op)
                        && op.outputs().stream().anyMatch(needed::contains);
                if (read) {
                    together.stream()
                            .filter(index -> obstacles[index] == null)
                            .forEach(index -> obstacles[index] = reason(op, needed));
                }
            });
        }
    }

    private boolean hasWeightOrCache(Op op) {
        return op.inputs().stream()
                .filter(Objects::nonNull)
                .anyMatch(value -> isCacheInput(value)
                        || value.constant() != null
                                && value.constant().rank() >= 2
                                && value.constant().elements() > 1);
    }

    private String reason(Op op, Set<Value> needed) {
        Op reader = op.outputs().stream()
                .filter(Objects::nonNull)
                .flatMap(value -> value.uses().stream())
                .map(Use::op)
                .filter(use -> use.outputs().stream().anyMatch(needed::contains))
                .reduce((first, last) -> last)
                .orElse(null);
        return "needed: its node " + op.node().label() + " is read by "
                + (reader == null ? "a graph output" : "node " + reader.node().label()) + ", which stays";
    }

    private void findCaches() {
        feeders.forEach((output, sources) -> sources.stream()
                .filter(op -> sources.stream().allMatch(owners::containsKey))
                .forEach(op -> cached.or(owners.get(op))));
        boolean used = needed(cached).stream().anyMatch(this::isCacheInput);
        if (!used) {
            cached.clear();
        }
    }

    private boolean isCacheInput(Value value) {
        return analysis.isState(value);
    }
}
