// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.measure;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import io.onnxprune.calibrate.AxisReduction;
import io.onnxprune.calibrate.GradientSink;
import io.onnxprune.calibrate.GradientSums;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Slicing;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.Allocation;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.plan.RandomImportance;
import io.onnxprune.plan.Taylor;
import io.onnxprune.rewrite.PrunedState;
import io.onnxprune.rewrite.Slicer.Slice;
import io.onnxprune.rewrite.Slicer.Sliced;
import java.nio.FloatBuffer;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.Set;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** Gradients of a pruned model in the shapes of the dense one. */
@Tag("ort")
class SlicedGradientsTest {
    @Test
    void gradientsOfAPrunedModelHaveTheShapesOfTheDenseModel() {
        for (String name : TestModels.names()) {
            Structure structure = TestModels.structure(name);
            Budget budget = Budget.ofRatio(PruneSet.standard(), 0.05);
            boolean prunable = structure.dimensions().stream()
                    .anyMatch(dimension ->
                            dimension.isPrunable() && dimension.role().key().equals("ffn"));
            if (!prunable) {
                continue;
            }
            var scores = new RandomImportance(3).score(structure, Log.NONE);
            Plan plan = Allocation.of(structure, scores, budget, "", Log.NONE).plan();
            PrunedState state = PrunedState.of(structure, plan, Map.of());
            assertThat(state.slices()).isNotEmpty();
            checkPlaces(structure, state);
        }
    }

    @Test
    void slicesOfOneConstantAddUp() {
        Structure structure = TestModels.structure("stories-llama");
        String name = structure.analysis().program().model().graph().initializers().entrySet().stream()
                .filter(entry ->
                        entry.getValue().dtype().isFloat() && entry.getValue().rank() == 1)
                .map(Map.Entry::getKey)
                .findFirst()
                .orElseThrow();
        Map<String, Slice> slices =
                Map.of(name, new Slice(name, new int[][] {{0, 2}}), "other", new Slice(name, new int[][] {{2, 5, 6}}));
        PrunedState dense = PrunedState.whole(structure, Plan.keepAll(""));
        PrunedState state = PrunedState.of(structure, dense.plan(), new Sliced(dense.model(), slices));
        Map<String, float[]> gradients = Map.of(name, new float[] {1, 2}, "other", new float[] {10, 20, 30});
        List<float[]> received = new ArrayList<>();
        new SlicedGradients(source(gradients), state).run(Set.of(name), false, (key, sums) -> {
            assertThat(key).isEqualTo(name);
            assertThat(sums.squares()).isNull();
            assertThat(sums.along(new AxisReduction(null, null, null, 0, null)))
                    .as("absolute values of sums cannot be added")
                    .isEmpty();
            float[] first = new float[7];
            sums.sum().get(first);
            received.add(first);
        });

        assertThat(received).hasSize(1);
        assertThat(received.get(0)).containsExactly(1, 0, 12, 0, 0, 20, 30);
    }

    private static void checkPlaces(Structure structure, PrunedState state) {
        Map<String, Tensor> originals = new HashMap<>();
        structure.analysis().constantUses().keySet().forEach(use -> {
            var value = use.op().input(use.input());
            if (value.constant().dtype().isFloat()) {
                originals.putIfAbsent(value.name(), value.constant());
            }
        });
        Map<String, Tensor> initializers = state.model().graph().initializers();
        Map<String, float[]> gradients = new HashMap<>();
        Random random = new Random(1);
        initializers.forEach((name, tensor) -> {
            float[] values = new float[(int) tensor.elements()];
            for (int i = 0; i < values.length; i++) {
                values[i] = random.nextInt(100) - 50;
            }
            gradients.put(name, values);
        });
        Map<String, float[]> received = new HashMap<>();
        new SlicedGradients(source(gradients), state).run(originals.keySet(), true, (name, sums) -> {
            FloatBuffer sum = sums.sum();
            float[] values = new float[sum.remaining()];
            sum.get(values);
            assertThat(sums.squares().remaining()).isEqualTo(values.length);
            assertThat(received.put(name, values)).as(name).isNull();
        });

        assertThat(received).isNotEmpty();
        Map<String, Float> totals = new HashMap<>();
        originals.forEach((name, tensor) -> {
            if (!received.containsKey(name)) {
                return;
            }
            assertThat(received.get(name)).hasSize((int) tensor.elements());
            float expected = 0;
            for (String piece : initializers.keySet()) {
                Slice slice = state.slices().get(piece);
                String source = slice == null ? piece : slice.source();
                if (source.equals(name)) {
                    expected += sum(gradients.get(piece));
                    if (pieces(state, initializers, name) == 1 && slice != null) {
                        Tensor full = Tensor.ofFloats(io.onnxprune.ir.DType.FLOAT, tensor.shape(), received.get(name));
                        assertThat(Slicing.slice(full, slice.kept()).toFloats()).containsExactly(gradients.get(piece));
                    }
                }
            }
            totals.put(name, expected);
            assertThat(sum(received.get(name))).as(name).isEqualTo(expected);
        });
        assertThat(totals).isNotEmpty();
    }

    private static long pieces(PrunedState state, Map<String, Tensor> initializers, String name) {
        return initializers.keySet().stream()
                .filter(piece -> (state.slices().containsKey(piece)
                                ? state.slices().get(piece).source()
                                : piece)
                        .equals(name))
                .count();
    }

    private static float sum(float[] values) {
        float sum = 0;
        for (float value : values) {
            sum += value;
        }
        return sum;
    }

    /** Gradients that refuse to be reduced. */
    @SuppressWarnings("ArrayRecordComponent") // never compared
    private record Unreducible(float[] values) implements GradientSums {
        @Override
        public FloatBuffer sum() {
            return FloatBuffer.wrap(values);
        }

        @Override
        public FloatBuffer squares() {
            return sum();
        }

        @Override
        public Optional<double[][]> along(AxisReduction reduction) {
            throw new AssertionError("reduced");
        }
    }

    private static Taylor.Gradients source(Map<String, float[]> gradients) {
        return new Taylor.Gradients() {
            @Override
            public int rows() {
                return 1;
            }

            @Override
            public void run(Set<String> initializers, boolean squares, GradientSink sink) {
                gradients.forEach((name, values) -> {
                    if (initializers.contains(name)) {
                        sink.accept(name, new Unreducible(values));
                    }
                });
            }
        };
    }
}
