// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.measure;

import io.onnxprune.calibrate.AxisReduction;
import io.onnxprune.calibrate.GradientSink;
import io.onnxprune.calibrate.GradientSums;
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
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import org.jspecify.annotations.Nullable;

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
        pruned.run(wanted, squares, (name, sums) -> {
            Slice slice = state.slices().get(name);
            String source = slice == null ? name : slice.source();
            if (slice == null && !pieces.containsKey(name)) {
                sink.accept(name, sums);
                return;
            }
            Tensor dense = Objects.requireNonNull(denseTensors.get(source), source);
            if (slice != null && pieces.getOrDefault(source, 0) == 0) {
                sink.accept(source, new OneSlice(sums, slice.kept(), dense));
                return;
            }
            Sum sum = incomplete.computeIfAbsent(source, key -> new Sum(dense.shape(), squares));
            sum.add(slice == null ? sum.whole() : slice.kept(), sums);
        });
        incomplete.forEach((source, sum) -> sink.accept(source, sum.sums()));
    }

    /** Adds the elements of a slice to those of the dense constant. */
    private static void scatter(FloatBuffer slice, int[][] kept, long[] shape, float[] target) {
        scatter(0, 0, slice.duplicate(), kept, shape, target);
    }

    private static void scatter(int axis, int start, FloatBuffer slice, int[][] kept, long[] shape, float[] target) {
        if (axis == shape.length) {
            target[start] += slice.get();
            return;
        }
        int extent = (int) shape[axis];
        int count = kept[axis] == null ? extent : kept[axis].length;
        for (int i = 0; i < count; i++) {
            int index = kept[axis] == null ? i : kept[axis][i];
            scatter(axis + 1, start * extent + index, slice, kept, shape, target);
        }
    }

    /** The gradients of a constant of which the pruned model has one slice. Outside it all terms are zero. */
    @SuppressWarnings("ArrayRecordComponent") // never compared
    private record OneSlice(GradientSums slice, int[][] kept, Tensor dense) implements GradientSums {
        @Override
        public FloatBuffer sum() {
            return whole(slice.sum());
        }

        @Override
        public @Nullable FloatBuffer squares() {
            FloatBuffer squares = slice.squares();
            return squares == null ? null : whole(squares);
        }

        private FloatBuffer whole(FloatBuffer elements) {
            float[] whole = new float[Math.toIntExact(dense.elements())];
            scatter(elements, kept, dense.shape(), whole);
            return FloatBuffer.wrap(whole);
        }

        @Override
        public Optional<double[][]> along(AxisReduction reduction) {
            return slice.along(reduction.slice(kept)).map(this::whole);
        }

        private double[][] whole(double[][] along) {
            double[][] whole = along.clone();
            for (int axis = 0; axis < along.length; axis++) {
                if (along[axis] != null && kept[axis] != null) {
                    whole[axis] = new double[Math.toIntExact(dense.dim(axis))];
                    for (int i = 0; i < along[axis].length; i++) {
                        whole[axis][kept[axis][i]] = along[axis][i];
                    }
                }
            }
            return whole;
        }
    }

    /**
     * The sum of gradients of several slices, in the shape of the dense constant. They are added element by element and
     * not reduced before, because slices overlap, and a sum of absolute values is not the absolute value of a sum.
     */
    private static final class Sum {
        private final long[] shape;
        private final float[] gradients;
        private final float @Nullable [] squares;

        Sum(long[] shape, boolean withSquares) {
            this.shape = shape;
            gradients = new float[Math.toIntExact(Tensor.elements(shape))];
            squares = withSquares ? new float[gradients.length] : null;
        }

        /** What a slice keeps that keeps everything: null for every axis, as in {@link Slice}. */
        int[][] whole() {
            return new int[shape.length][];
        }

        /** Adds a slice. There are no squares where {@link GradientSums} has none. */
        void add(int[][] kept, GradientSums slice) {
            scatter(slice.sum(), kept, shape, gradients);
            if (squares != null) {
                scatter(Objects.requireNonNull(slice.squares()), kept, shape, squares);
            }
        }

        GradientSums sums() {
            return GradientSums.of(FloatBuffer.wrap(gradients), squares == null ? null : FloatBuffer.wrap(squares));
        }
    }
}
