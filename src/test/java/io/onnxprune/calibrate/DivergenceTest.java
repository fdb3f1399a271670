// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Structure;
import io.onnxprune.eval.CausalLm;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Tensor;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.plan.Plan;
import io.onnxprune.rewrite.BlockRemover;
import io.onnxprune.rewrite.Slicer;
import io.onnxprune.runtime.HostTensor;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** The KL divergence from a reference, computed segment by segment, against runs of both entire models. */
@Tag("ort")
@Tag("slow")
class DivergenceTest {
    private static final int LENGTH = 9;
    private static final List<long[]> ROWS = Gathered.randomRows(5, LENGTH, 32, 3);

    @TempDir
    private Path folder;

    private Calibrator calibrator(Model model, long memory) {
        return Calibrator.of(
                model, TestModels.runtime(), new CalibrationOptions(memory, folder, false), LENGTH, Log.NONE);
    }

    /**
     * A model without some channels of the residual stream and of the FFN, and without one block where blocks can be
     * pruned.
     */
    private static Model small(Structure structure) {
        Map<String, int[]> keep = new HashMap<>();
        structure.dimensions().forEach(dimension -> {
            if (dimension.isPrunable()
                    && (dimension.name().startsWith("ffn") || dimension.name().equals("hidden"))) {
                int left = dimension.size() - dimension.size() / 4;
                keep.put(dimension.name(), IntStream.range(0, left).toArray());
            }
        });
        int[] blocks = IntStream.range(0, structure.stream().blocks().size())
                .filter(block ->
                        block != 1 || structure.stream().blocks().get(block).pin() != null)
                .toArray();
        assertThat(keep).isNotEmpty();
        Plan plan = new Plan("", keep, null, blocks);
        return BlockRemover.remove(structure, plan, Slicer.slice(structure, plan.keep(structure), Map.of()));
    }

    /** Decoders of different forms, which differ in cuts, side values and kinds of heads. */
    static List<String> models() {
        return TestModels.names();
    }

    @ParameterizedTest
    @MethodSource("models")
    void lossesAreThoseOfTheLogits(String name) {
        Structure structure = TestModels.structure(name);
        Model dense = structure.analysis().program().model();
        Model small = small(structure);
        double[] expected = divergences(dense, small);
        for (long memory : new long[] {Gathered.AMPLE, Gathered.SCANT}) {
            Calibrator reference = calibrator(dense, memory);
            Calibrator model = calibrator(small, memory);
            try (Divergence divergence = Divergence.from(reference, model, ROWS)) {
                double[] found = model.losses(divergence);
                assertThat(found).hasSameSizeAs(expected);
                for (int row = 0; row < found.length; row++) {
                    assertThat(found[row]).isCloseTo(expected[row], within(2e-3 * expected[row] + 1e-5));
                }
                assertThat(model.losses(divergence.first(1))[0]).isCloseTo(found[0], within(1e-5));
                assertThat(model.losses(divergence.first(100))).hasSameSizeAs(found);
                assertThat(reference.losses(divergence)).containsExactly(new double[ROWS.size()], within(1e-6));
            }
        }
        assertThat(Arrays.stream(expected).max().orElseThrow()).isGreaterThan(1e-4);
        assertThat(folder).isEmptyDirectory();
    }

    private static double[] divergences(Model reference, Model model) {
        long[][] tokens = ROWS.toArray(long[][]::new);
        float[] referenceLogits = logits(reference, tokens);
        float[] ours = logits(model, tokens);
        int vocabulary = ours.length / ROWS.size() / LENGTH;
        double[] rows = new double[ROWS.size()];
        for (int position = 0; position < ROWS.size() * LENGTH; position++) {
            double[] p = logProbabilities(referenceLogits, position * vocabulary, vocabulary);
            double[] q = logProbabilities(ours, position * vocabulary, vocabulary);
            for (int v = 0; v < vocabulary; v++) {
                rows[position / LENGTH] += Math.exp(p[v]) * (p[v] - q[v]) / LENGTH;
            }
        }
        return rows;
    }

    private static float[] logits(Model model, long[][] tokens) {
        try (CausalLm lm = CausalLm.of(TestModels.runtime().open(model, true), model.graph())) {
            return lm.logits(tokens).toFloats();
        }
    }

    private static double[] logProbabilities(float[] logits, int start, int count) {
        double largest = Double.NEGATIVE_INFINITY;
        for (int v = 0; v < count; v++) {
            largest = Math.max(largest, logits[start + v]);
        }
        double sum = 0;
        for (int v = 0; v < count; v++) {
            sum += Math.exp(logits[start + v] - largest);
        }
        double[] result = new double[count];
        for (int v = 0; v < count; v++) {
            result[v] = logits[start + v] - largest - Math.log(sum);
        }
        return result;
    }

    @ParameterizedTest
    @ValueSource(strings = {"stories-llama", "gpt-neox-d", "qwen3-moe-d"})
    void gradientsPredictTheEffectOfNewWeights(String name) {
        Structure structure = TestModels.structure(name);
        Calibrator reference = calibrator(structure.analysis().program().model(), Gathered.AMPLE);
        Calibrator model = calibrator(small(structure), Gathered.AMPLE);
        Map<String, float[]> gradients = new LinkedHashMap<>();
        try (Divergence divergence = Divergence.from(reference, model, ROWS)) {
            Calibrator.Summary summary =
                    model.gather(divergence, taps(model), (tap, sum) -> gradients.put(tap.subject(), sum.toFloats()));
            assertThat(summary.loss()).containsExactly(model.losses(divergence), within(1e-5));

            Random random = new Random(2);
            Map<String, Tensor> ahead = new HashMap<>();
            Map<String, Tensor> behind = new HashMap<>();
            double foretold = 0;
            double norm = 0;
            for (float[] gradient : gradients.values()) {
                for (float part : gradient) {
                    norm += (double) part * part;
                }
            }
            float step = (float) (0.05 / norm);
            for (Map.Entry<String, float[]> entry : gradients.entrySet()) {
                Tensor weight =
                        model.program().initializers().get(entry.getKey()).constant();
                assertThat(weight.dtype()).isEqualTo(DType.FLOAT);
                float[] up = weight.toFloats();
                float[] down = weight.toFloats();
                for (int i = 0; i < up.length; i++) {
                    float way = random.nextBoolean() ? step * entry.getValue()[i] : 0;
                    up[i] += way;
                    down[i] -= way;
                    foretold += (double) entry.getValue()[i] * (up[i] - down[i]);
                }
                ahead.put(entry.getKey(), Tensor.ofFloats(DType.FLOAT, weight.shape(), up));
                behind.put(entry.getKey(), Tensor.ofFloats(DType.FLOAT, weight.shape(), down));
            }
            double change = sum(model.withWeights(ahead).losses(divergence))
                    - sum(model.withWeights(behind).losses(divergence));
            assertThat(change).isGreaterThan(1e-2);
            assertThat(foretold).isCloseTo(change, within(0.03 * change));
        }
    }

    private static Set<Tap> taps(Calibrator model) {
        Set<Tap> taps = new LinkedHashSet<>();
        model.linears().forEach(linear -> taps.add(new Tap.Gradient(linear.weight())));
        return taps;
    }

    private static double sum(double[] values) {
        return Arrays.stream(values).sum();
    }

    @Test
    void segmentsGiveTheGradientsOfOnePiece() {
        Structure structure = TestModels.structure("stories-llama");
        Map<Long, Map<Tap, HostTensor>> sums = new HashMap<>();
        for (long memory : new long[] {Gathered.AMPLE, Gathered.SCANT}) {
            Calibrator reference = calibrator(structure.analysis().program().model(), memory);
            Calibrator model = calibrator(small(structure), memory);
            Map<Tap, HostTensor> found = new HashMap<>();
            try (Divergence divergence = Divergence.from(reference, model, ROWS)) {
                model.gather(divergence, taps(model), found::put);
            }
            sums.put(memory, found);
        }
        sums.get(Gathered.AMPLE)
                .forEach((tap, sum) -> assertThat(Gathered.distance(
                                sums.get(Gathered.SCANT).get(tap).toFloats(), sum.toFloats()))
                        .as(tap.toString())
                        .isLessThan(1e-4));
    }

    @Test
    void replacedWeightsGiveTheLossesOfTheModelWithTheseWeights() {
        Model model = ModelReader.read(TestModels.file("llama-g16-e-fp16"));
        Calibrator calibrator = calibrator(model, Gathered.AMPLE);
        LoweredLinear linear = calibrator.linears().get(3);
        Tensor weight = calibrator.program().initializers().get(linear.weight()).constant();
        float[] values = weight.toFloats();
        for (int i = 0; i < values.length; i += 2) {
            values[i] = 0;
        }
        Tensor changed = Tensor.ofFloats(weight.dtype(), weight.shape(), values);
        Map<String, Tensor> initializers = new HashMap<>(model.graph().initializers());
        initializers.put(linear.weight(), changed);
        Calibrator anew = calibrator(model.withGraph(model.graph().withInitializers(initializers)), Gathered.AMPLE);
        Objective objective = new Objective.NextToken(ROWS);

        double[] expected = anew.losses(objective);
        assertThat(calibrator.withWeights(Map.of(linear.weight(), changed)).losses(objective))
                .isEqualTo(expected);
        assertThat(calibrator.losses(objective)).isNotEqualTo(expected);
        assertThatThrownBy(() -> calibrator.withWeights(Map.of("nothing", changed)))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageContaining("no initializer");
    }
}
