// SPDX-License-Identifier: Apache-2.0
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
import java.util.Objects;
import java.util.Set;
import java.util.stream.IntStream;
import java.util.stream.Stream;

/** Finds the values and constants that are unused once residual blocks are pruned. */
final class Liveness {
    private final Program program;
    private final List<Block> blocks;
    private final BlockRemoval removal;
    private final Reached alive;

    /** Values, and the constants among them. */
    private record Reached(Set<Value> values, Set<Tensor> constants) {}

    Liveness(Structure structure) {
        program = structure.analysis().program();
        blocks = structure.stream().blocks();
        removal = BlockRemoval.of(structure);
        alive = reached(new BitSet());
    }

    /** What becomes unused without some blocks. */
    record Dead(Set<Value> values, Set<Tensor> constants) {}

    /** What becomes unused without the blocks of the given indices. */
    Dead deadWithout(BitSet removed) {
        Dead dead = new Dead(new HashSet<>(), new HashSet<>());
        if (!removed.isEmpty()) {
            Reached left = reached(removed);
            dead.values.addAll(alive.values);
            dead.values.removeAll(left.values);
            dead.constants.addAll(alive.constants);
            dead.constants.removeAll(left.constants);
        }
        return dead;
    }

    private Reached reached(BitSet removed) {
        Map<Op, Block> skipped = new HashMap<>();
        removed.stream().mapToObj(blocks::get).forEach(block -> skipped.put(block.add(), block));
        Set<Value> dropped = removal.droppedOutputs(removed);
        Set<Tensor> constants = new HashSet<>();
        Set<Value> seen = new HashSet<>();
        Deque<Value> open = new ArrayDeque<>();
        program.outputs().stream().filter(output -> !dropped.contains(output)).forEach(open::push);
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
        return new Reached(seen, constants);
    }

    /** The values that the branches yield for an output of an If; empty for any other value. */
    private Stream<Value> branches(Value output) {
        Op producer = output.producer();
        if (!producer.node().is("If")) {
            return Stream.empty();
        }
        int index = producer.outputs().indexOf(output);
        return program.branchOutputs(producer.node()).stream().map(values -> values.get(index));
    }

    private void pushSources(Value value, Op producer, Block skipped, Deque<Value> open) {
        if (skipped != null) {
            open.push(skipped.base());
            if (!isSum(producer, value)) {
                // The normalisation is kept, without the bias that the fused operator would add to the sum.
                int bias = producer.node().is("SkipLayerNormalization") ? 4 : 3;
                IntStream.range(2, bias)
                        .mapToObj(producer::input)
                        .filter(Objects::nonNull)
                        .forEach(open::push);
            }
            return;
        }
        branches(value).forEach(open::push);
        // A Shape only needs a length, which any kept cache has. It needs no weight.
        if (!producer.node().is("Shape")) {
            producer.inputs().stream().filter(Objects::nonNull).forEach(open::push);
        }
    }

    /** Whether {@code value} is the bare sum, not its normalisation by the same fused operator. */
    private static boolean isSum(Op add, Value value) {
        return !ResidualStream.isSkipNormalization(add) || value == add.output(3);
    }
}
