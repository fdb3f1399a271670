// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.DimensionAnalysis.Member;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.plan.Magnitude.Norm;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;

@Tag("ort")
class ImportanceTest {
    static List<String> models() {
        return TestModels.names();
    }

    @ParameterizedTest
    @MethodSource("models")
    void theScoreOfAUnitIsTheNormOfItsSlices(String name) {
        Structure structure = TestModels.structure(name);
        Scores scores = new Magnitude(Norm.L2, Reduction.SUM, 2).score(structure, Log.NONE);
        for (Dimension dimension : structure.dimensions()) {
            if (!dimension.isPrunable()) {
                assertThat(scores.units()).doesNotContainKey(dimension.name());
                continue;
            }
            assertThat(scores.units().get(dimension.name())).hasSize(dimension.size());
            for (int unit : new int[] {0, dimension.size() / 2, dimension.size() - 1}) {
                double expected = slices(dimension, unit, Norm.L2).stream()
                        .mapToDouble(Double::doubleValue)
                        .sum();
                assertThat(scores.units().get(dimension.name())[unit])
                        .as("%s %s %d", name, dimension.name(), unit)
                        .isCloseTo(expected, within(1e-6 * (1 + expected)));
            }
        }
    }

    /** The alignment of channels of members does not affect sums. TaylorTest covers the other reductions. */
    @ParameterizedTest
    @EnumSource(
            value = Reduction.class,
            names = {"SUM", "MEAN"})
    void membersAreReduced(Reduction reduction) {
        Structure structure = TestModels.structure("llama-gqa-d");
        Scores scores = new Magnitude(Norm.L1, reduction, 1).score(structure, Log.NONE);
        for (String name : List.of("ffn.0", "kv_heads.1", "hidden")) {
            Dimension dimension = ParameterCountTest.named(structure, name);
            for (int unit = 0; unit < dimension.size(); unit++) {
                var slices = slices(dimension, unit, Norm.L1).stream()
                        .mapToDouble(Double::doubleValue)
                        .summaryStatistics();
                double expected = reduction == Reduction.SUM ? slices.getSum() : slices.getAverage();
                assertThat(scores.units().get(name)[unit]).isCloseTo(expected, within(1e-6 * (1 + expected)));
            }
        }
    }

    /** Σ|w|ᵖ over the slice of a unit in each distinct member, found by the indices that are kept without the unit. */
    private static List<Double> slices(Dimension dimension, int unit, Norm norm) {
        int[] others =
                IntStream.range(0, dimension.size()).filter(i -> i != unit).toArray();
        Dim.Keep without = atom -> atom == dimension.atom() ? others : null;
        List<Double> sums = new ArrayList<>();
        Set<List<Object>> seen = new LinkedHashSet<>();
        for (Member member : dimension.members()) {
            Tensor tensor = member.tensor();
            if (tensor.dtype().isFloat() && seen.add(List.of(tensor, member.axis()))) {
                float[] values = tensor.toFloats();
                int extent = (int) tensor.dim(member.axis());
                int[] left = member.dim().kept(without);
                long stride = 1;
                for (int axis = member.axis() + 1; axis < tensor.rank(); axis++) {
                    stride *= tensor.dim(axis);
                }
                double sum = 0;
                for (int i = 0; i < values.length; i++) {
                    int index = (int) (i / stride % extent);
                    if (Arrays.binarySearch(left, index) < 0) {
                        sum += norm == Norm.L1 ? Math.abs(values[i]) : (double) values[i] * values[i];
                    }
                }
                sums.add(sum);
            }
        }
        if (!dimension.units().own().isEmpty()) {
            dimension.units().own().get(unit).stream()
                    .map(Value::constant)
                    .filter(tensor -> tensor.dtype().isFloat() && tensor.elements() > 1)
                    .forEach(tensor -> sums.add(norm(tensor.toFloats(), norm)));
        }
        return sums;
    }

    private static double norm(float[] values, Norm norm) {
        return IntStream.range(0, values.length)
                .mapToDouble(i -> norm == Norm.L1 ? Math.abs(values[i]) : (double) values[i] * values[i])
                .sum();
    }

    @Test
    void layersAndBlocksAreScoredByTheirWeights() {
        Structure structure = TestModels.structure("stories-llama");
        Scores scores = new Magnitude(Norm.L2, Reduction.SUM, 2).score(structure, Log.NONE);

        assertThat(scores.layers()).hasSize(6);
        assertThat(scores.blocks()).hasSize(12);
        for (int layer = 0; layer < 6; layer++) {
            double blocks = scores.blocks()[2 * layer] + scores.blocks()[2 * layer + 1];
            assertThat(scores.layers()[layer]).isPositive().isCloseTo(blocks, within(1e-6 * blocks));
        }
    }

    @Test
    void copiesOfABlockInTwoBranchesScoreTheSame() {
        Structure structure = TestModels.structure("gpt2-g-merged");
        for (Importance importance : List.of(new Magnitude(Norm.L2, Reduction.SUM, 1), new RandomImportance(1))) {
            double[] blocks = importance.score(structure, Log.NONE).blocks();
            for (int[] copies : PrunableBlocks.blocks(structure)) {
                assertThat(blocks[copies[0]]).isPositive().isEqualTo(blocks[copies[1]]);
            }
        }
    }

    @Test
    void theNumberOfThreadsChangesNothing() {
        Structure structure = TestModels.structure("stories-llama");
        Scores one = new Magnitude(Norm.L1, Reduction.SUM, 1).score(structure, Log.NONE);
        Scores three = new Magnitude(Norm.L1, Reduction.SUM, 3).score(structure, Log.NONE);

        assertThat(three.units().keySet()).isEqualTo(one.units().keySet());
        one.units().forEach((name, units) -> assertThat(three.units().get(name)).containsExactly(units));
        assertThat(three.layers()).containsExactly(one.layers());
    }

    @ParameterizedTest
    @org.junit.jupiter.params.provider.ValueSource(floats = {Float.NaN, Float.NEGATIVE_INFINITY})
    void weightsThatAreNotFiniteAreRefused(float bad) {
        Model model = ModelReader.read(TestModels.file("stories-llama"));
        Structure dense = TestModels.structure("stories-llama");
        Member member = ParameterCountTest.named(dense, "ffn.3").members().get(0);
        String name = member.use().op().input(member.use().input()).name();
        Map<String, Tensor> changed = new LinkedHashMap<>(model.graph().initializers());
        float[] values = changed.get(name).toFloats();
        values[1234] = bad;
        changed.put(
                name, Tensor.ofFloats(member.tensor().dtype(), member.tensor().shape(), values));
        Structure structure = TestModels.structure(model.withGraph(model.graph().withInitializers(changed)));

        assertThatThrownBy(() -> new Magnitude(Norm.L2, Reduction.SUM, 2).score(structure, Log.NONE))
                .isInstanceOf(UserException.class)
                .hasMessageContaining('"' + name + '"')
                .hasMessageContaining(member.use().op().node().label())
                .hasMessageContaining(bad + " at element 1234");
    }

    @Test
    void randomScoresDependOnlyOnSeedAndName() {
        Structure small = TestModels.structure("llama-gqa-d");
        Structure other = TestModels.structure("llama-gqa-b");
        Scores first = new RandomImportance(7).score(small, Log.NONE);

        assertThat(new RandomImportance(7).score(other, Log.NONE).units().get("ffn.1"))
                .containsExactly(first.units().get("ffn.1"));
        assertThat(new RandomImportance(8).score(small, Log.NONE).units().get("ffn.1"))
                .isNotEqualTo(first.units().get("ffn.1"));
        assertThat(first.units().get("ffn.0")).isNotEqualTo(first.units().get("ffn.1"));
        assertThat(Arrays.stream(first.units().get("ffn.1")).boxed()).allMatch(score -> score >= 0 && score < 1);
    }
}
