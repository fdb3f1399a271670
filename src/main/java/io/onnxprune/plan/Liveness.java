package io.onnxprune.plan;

import io.onnxprune.dims.ResidualStream;
import io.onnxprune.dims.ResidualStream.Block;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Program;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import java.util.ArrayDeque;
import java.util.BitSet;
import java.util.Deque;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** Which constants nothing reads any more once residual blocks are gone. */
final class Liveness {
    private final Program program;
    private final List<Block> blocks;
    private final Set<Tensor> alive;

    Liveness(Structure structure) {
        program = structure.analysis().program();
        blocks = structure.stream().blocks();
        alive = reached(new BitSet());
    }

    /** The constants that die with the blocks of the given indices. */
    Set<Tensor> deadWithout(BitSet removed) {
        Set<Tensor> dead = new HashSet<>();
        if (!removed.isEmpty()) {
            dead.addAll(alive);
            dead.removeAll(reached(removed));
        }
        return dead;
    }

    private Set<Tensor> reached(BitSet removed) {
        Map<Op, Block> skipped = new HashMap<>();
        removed.stream().mapToObj(blocks::get).forEach(block -> skipped.put(block.add(), block));
        Set<Op> inside = insideOnly(removed);
        Set<Tensor> constants = new HashSet<>();
        Set<Value> seen = new HashSet<>();
        Deque<Value> open = new ArrayDeque<>();
        program.outputs().stream().filter(output -> !isLost(output, inside)).forEach(open::push);
        while (!open.isEmpty()) {
            Value value = open.pop();
            if (!seen.add(value)) {
                continue;
            }
            if (value.constant() != null) {
                constants.add(value.constant());
            }
            Op producer = value.producer();
            if (producer != null) {
                pushSources(value, producer, skipped.get(producer), open);
            }
        }
        return constants;
    }

    private void pushSources(Value value, Op producer, Block skipped, Deque<Value> open) {
        if (skipped != null && isSum(producer, value)) {
            open.push(skipped.base());
            // A bias that a fused operator adds to the sum is no part of the block.
            Value bias = producer.input(producer.node().is("SkipLayerNormalization") ? 4 : 3);
            if (bias != null) {
                open.push(bias);
            }
            return;
        }
        if (producer.node().is("Shape")) {
            // Lengths are read from any cache that stays; no weight is needed for that.
            return;
        }
        for (Value input : producer.inputs()) {
            if (input != null && (skipped == null || input != skipped.branch())) {
                open.push(input);
            }
        }
        if (producer.node().is("If")) {
            int output = producer.outputs().indexOf(value);
            program.branchOutputs(producer.node()).forEach(values -> open.push(values.get(output)));
        }
    }

    /** Whether {@code value} is the bare sum, not its normalisation by the same fused operator. */
    private static boolean isSum(Op add, Value value) {
        return !ResidualStream.isSkipNormalization(add) || value == add.output(3);
    }

    /** Whether an output is a cache of a removed block, in either branch of an If. */
    private boolean isLost(Value output, Set<Op> inside) {
        Op producer = output.origin().producer();
        if (producer != null && producer.node().is("If")) {
            int index = producer.outputs().indexOf(output.origin());
            return program.branchOutputs(producer.node()).stream()
                    .anyMatch(values -> isLost(values.get(index), inside));
        }
        return producer != null && inside.contains(producer);
    }

    /** The applications of removed blocks alone: their cache outputs go with them. */
    private Set<Op> insideOnly(BitSet removed) {
        Set<Op> inside = new HashSet<>();
        removed.stream().forEach(index -> inside.addAll(blocks.get(index).ops()));
        for (int index = removed.nextClearBit(0); index < blocks.size(); index = removed.nextClearBit(index + 1)) {
            inside.removeAll(blocks.get(index).ops());
        }
        return inside;
    }
}
