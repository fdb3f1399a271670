// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.measure;

import io.onnxprune.calibrate.GradientSink;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.Taylor;
import io.onnxprune.rewrite.PrunedState;
import io.onnxprune.rewrite.Slicer.Slice;
import java.nio.FloatBuffer;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.Map;
import java.util.Set;

/**
 * Gradients of a pruned model in the shapes of the dense model, zero for pruned units. Where several uses kept
 * different slices of one constant, their gradients are added.
 */
final class SlicedGradients implements Taylor.Gradients {
    private final Taylor.Gradients pruned;
    private final PrunedState state;
    private final Map<String, Tensor> denseTensors = new HashMap<>();
    private final Map<String, Tensor> updated = new HashMap<>();

    /** Creates gradients from those of the model of {@code state}. */
    SlicedGradients(Taylor.Gradients pruned, PrunedState state) {
        this.pruned = pruned;
        this.state = state;
        state.structure().analysis().constantUses().keySet().forEach(use -> {
            Value value = use.op().input(use.input());
            denseTensors.putIfAbsent(value.name(), value.constant());
        });
        denseTensors.putAll(
                state.structure().analysis().program().model().graph().initializers());
        state.updates().forEach((value, tensor) -> updated.put(value.name(), tensor));
    }

    @Override
    public int rows() {
        return pruned.rows();
    }

    @Override
    public Tensor weights(String initializer, Tensor original) {
        return updated.getOrDefault(initializer, original);
    }

    @Override
    public void run(Set<String> initializers, boolean squares, GradientSink sink) {
        if (state.slices().isEmpty()) {
            pruned.run(initializers, squares, sink);
            return;
        }
        Set<String> wanted = new LinkedHashSet<>(initializers);
        Map<String, Integer> pieces = new HashMap<>();
        state.slices().forEach((name, slice) -> {
            if (initializers.contains(slice.source())) {
                wanted.add(name);
                pieces.merge(slice.source(), name.equals(slice.source()) ? 0 : 1, Integer::sum);
            }
        });
        Map<String, Sum> incomplete = new LinkedHashMap<>();
        pruned.run(wanted, squares, (name, gradient, gradientSquares) -> {
            Slice slice = state.slices().get(name);
            String source = slice == null ? name : slice.source();
            if (slice == null && !pieces.containsKey(name)) {
                sink.accept(name, gradient, gradientSquares);
                return;
            }
            Sum sum = incomplete.computeIfAbsent(source, key -> new Sum(denseTensors.get(key), squares));
            sum.add(slice == null ? null : slice.kept(), gradient, gradientSquares);
            if (pieces.get(source) == 0) {
                sum.passTo(source, sink);
                incomplete.remove(source);
            }
        });
        incomplete.forEach((source, sum) -> sum.passTo(source, sink));
    }

    /** The sum of gradients of slices, in the shape of the dense constant. */
    private static final class Sum {
        private final long[] shape;
        private final float[] gradient;
        private final float[] squares;

        Sum(Tensor dense, boolean withSquares) {
            shape = dense.shape();
            gradient = new float[Math.toIntExact(dense.elements())];
            squares = withSquares ? new float[gradient.length] : null;
        }

        void add(int[][] kept, FloatBuffer piece, FloatBuffer pieceSquares) {
            add(0, 0, kept == null ? new int[shape.length][] : kept, piece.duplicate(), gradient);
            if (squares != null) {
                add(0, 0, kept == null ? new int[shape.length][] : kept, pieceSquares.duplicate(), squares);
            }
        }

        private void add(int axis, int start, int[][] kept, FloatBuffer piece, float[] target) {
            if (axis == shape.length) {
                target[start] += piece.get();
                return;
            }
            int extent = (int) shape[axis];
            int count = kept[axis] == null ? extent : kept[axis].length;
            for (int i = 0; i < count; i++) {
                int index = kept[axis] == null ? i : kept[axis][i];
                add(axis + 1, start * extent + index, kept, piece, target);
            }
        }

        void passTo(String name, GradientSink sink) {
            sink.accept(name, FloatBuffer.wrap(gradient), squares == null ? null : FloatBuffer.wrap(squares));
        }
    }
}
