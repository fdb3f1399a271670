// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.TestModels;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.LoweredLinear;
import io.onnxprune.calibrate.SequentialRun;
import io.onnxprune.calibrate.SequentialRun.InputStatistics;
import io.onnxprune.calibrate.SequentialRun.Reference;
import io.onnxprune.compensate.LayerwisePruning.Update;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.plan.Plan;
import io.onnxprune.rewrite.OutputBiases;
import io.onnxprune.rewrite.PrunedState;
import java.nio.FloatBuffer;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Biases compensate for the mean of pruned units. */
@Tag("ort")
class BiasCompensationTest {
    private static final Update BIAS = new Update(true, 0, false);

    @TempDir
    private Path folder;

    /** Compares the mean output of each linear layer before and after an edit. */
    private static final class Means implements SequentialRun.Editor {
        private final SequentialRun.Editor inner;
        private final PrunedLinears sites;
        private final PrunedState state;
        private final Map<String, double[]> lost = new LinkedHashMap<>();
        private final Map<String, double[]> added = new LinkedHashMap<>();

        Means(SequentialRun.Editor inner, PrunedState state) {
            this.inner = inner;
            this.state = state;
            this.sites = new PrunedLinears(state, LinearLayers.of(state.structure()));
        }

        @Override
        public boolean wants(LoweredLinear linear) {
            return inner.wants(linear);
        }

        @Override
        public Map<String, Tensor> edit(List<LoweredLinear> sharing, InputStatistics statistics) {
            Map<String, Tensor> edited = inner.edit(sharing, statistics);
            for (LoweredLinear linear : sharing) {
                PrunedLinear site = sites.of(linear);
                FloatBuffer total = statistics.total().asFloats();
                double[] difference = new double[site.columns().length];
                try (Matrix before = site.read();
                        Matrix after = WeightStore.read(
                                edited.get(linear.weight()), site.dense().axis())) {
                    for (int i = 0; i < before.rows(); i++) {
                        for (int j = 0; j < difference.length; j++) {
                            double mean = (double) total.get(total.position() + i) / statistics.positions();
                            difference[j] += mean * (before.get(i, j) - after.get(i, j));
                        }
                    }
                }
                lost.put(linear.node(), difference);
                Value bias =
                        new OutputBiases(state.structure()).of(site.dense()).get(0);
                Tensor present = state.updates().getOrDefault(bias, bias.constant());
                float[] was = present.toFloats();
                float[] is = edited.get(bias.name()).toFloats();
                added.put(
                        linear.node(),
                        IntStream.range(0, is.length)
                                .mapToDouble(i -> (double) is[i] - was[site.columns()[i]])
                                .toArray());
            }
            return edited;
        }

        void assertSame(double tolerance) {
            assertThat(lost).isNotEmpty();
            lost.forEach((node, expected) -> {
                assertThat(added.get(node)).as(node).containsExactly(expected, within(tolerance));
                assertThat(expected).as(node).isNotEqualTo(new double[expected.length]);
            });
        }
    }

    private static Structure biased(String name, String... prune) {
        Structure structure = TestModels.structure(name);
        LinearLayers layers = LinearLayers.of(structure);
        Plan plan = Runs.plan(structure, 0.2, prune);
        return TestModels.structure(OutputBiases.complete(
                structure,
                structure.dimensions().stream()
                        .filter(dimension -> plan.keep().containsKey(dimension.name()))
                        .flatMap(dimension -> layers.of(dimension).stream())
                        .toList()));
    }

    private LayerwisePruning prune(PrunedState state, Plan target, Selection selection) {
        return new LayerwisePruning(
                state,
                LinearLayers.of(state.structure()),
                target,
                new LayerwisePruning.Method(Optional.ofNullable(selection), Optional.of(BIAS)),
                folder,
                Log.NONE);
    }

    private void run(PrunedState state, SequentialRun.Editor editor) {
        SequentialRun.run(Runs.calibrator(state.model(), folder), null, Runs.rows(12), editor);
    }

    private static PrunedState dense(Structure structure) {
        return PrunedState.whole(structure, Plan.keepAll(""));
    }

    @ParameterizedTest
    @ValueSource(
            strings = {"stories-llama", "opt-f-a-bert", "gpt2-cb", "gpt2-g-merged", "gpt-neox-d", "llama-g16-e-fp16"})
    void theMeanOfEveryOutputIsKept(String name) {
        Structure structure = biased(name, "heads", "ffn");
        Plan target = Runs.plan(structure, 0.2, "heads", "ffn");
        LayerwisePruning pruning = prune(dense(structure), target, null);
        Means means = new Means(pruning, dense(structure));
        run(dense(structure), means);

        means.assertSame(name.endsWith("fp16") ? 2e-3 : 1e-4);
        // The weights and biases change; kept rows of the weights do not.
        assertThat(pruning.updates().size()).isGreaterThanOrEqualTo(2 * means.lost.size());
        pruning.updates().forEach((value, tensor) -> {
            float[] before = value.constant().toFloats();
            float[] after = tensor.toFloats();
            for (int i = 0; tensor.rank() == 2 && i < after.length; i++) {
                assertThat(after[i]).isIn(before[i], 0f);
            }
        });
    }

    /** A second step starts from the biases of the first, in a narrower residual stream. */
    @Test
    void stepsAddToTheBiasesOfEarlierSteps() {
        Structure structure = biased("llama-gqa-d", "heads", "ffn");
        Map<String, int[]> keep =
                new HashMap<>(Runs.plan(structure, 0.1, "heads", "ffn").keep());
        keep.put("hidden", IntStream.range(0, 64).filter(i -> i % 4 != 2).toArray());
        Plan first = new Plan("", keep, null, null);
        PrunedState narrow =
                PrunedState.of(structure, new Plan("", Map.of("hidden", keep.get("hidden")), null, null), Map.of());
        LayerwisePruning one = prune(narrow, first, null);
        run(narrow, one);
        PrunedState state = PrunedState.of(structure, first, one.updates());
        keep.putAll(Runs.plan(structure, 0.3, "heads", "ffn").keep());
        LayerwisePruning two = prune(state, new Plan("", keep, null, null), null);
        Means means = new Means(two, state);
        run(state, means);

        means.assertSame(1e-5);
        Set<Value> biases = new java.util.HashSet<>(two.updates().keySet());
        biases.removeIf(value -> value.constant().rank() == 2);
        assertThat(biases).isNotEmpty().allSatisfy(bias -> {
            assertThat(bias.constant().elements()).isEqualTo(64);
            assertThat(two.updates().get(bias).elements()).isEqualTo(64);
            assertThat(two.updates().get(bias).toFloats()[2]).isZero();
            assertThat(one.updates()).containsKey(bias);
        });
    }

    /** In the first block, Wanda chooses the same units block by block as over the dense model. */
    @Test
    void theFirstBlockLosesTheSmallestUnits() {
        Structure structure = biased("stories-llama", "heads", "ffn");
        Plan target = Runs.plan(structure, 0.3, "ffn");
        double[][] scores = new double[1][];
        LayerwisePruning pruning = prune(dense(structure), target, new WandaSelection());
        run(dense(structure), new SequentialRun.Editor() {
            @Override
            public boolean wants(LoweredLinear linear) {
                return pruning.wants(linear);
            }

            @Override
            public Map<String, Tensor> edit(List<LoweredLinear> sharing, InputStatistics statistics) {
                PrunedLinear site = new PrunedLinears(dense(structure), LinearLayers.of(structure)).of(sharing.get(0));
                if (scores[0] == null) {
                    int n = sharing.get(0).input().width();
                    scores[0] = new double[n];
                    FloatBuffer moment = statistics.secondMoment().asFloats();
                    try (Matrix w = site.read()) {
                        for (int i = 0; i < n; i++) {
                            for (int j = 0; j < w.columns(); j++) {
                                scores[0][i] +=
                                        Math.abs(w.get(i, j)) * Math.sqrt(moment.get(moment.position() + i * n + i));
                            }
                        }
                    }
                }
                return pruning.edit(sharing, statistics);
            }
        });

        int[] kept = pruning.plan().keep().get("ffn.0");
        double least = IntStream.of(kept).mapToDouble(i -> scores[0][i]).min().orElseThrow();
        assertThat(kept).hasSameSizeAs(target.keep().get("ffn.0"));
        assertThat(IntStream.range(0, 344).filter(i -> scores[0][i] > least)).hasSize(kept.length - 1);
    }

    /** With biases the refit leaves no mean error: that is its normal equation. */
    @Test
    void aRefitWithBiasesHasNoMeanError() {
        Structure structure = biased("stories-llama", "heads", "ffn");
        PrunedState state = PrunedState.of(structure, Runs.plan(structure, 0.2, "heads", "ffn"), Map.of());
        double[] mean = new double[2];
        for (boolean biases : new boolean[] {false, true}) {
            ResidualRefit refit = new ResidualRefit(state, LinearLayers.of(structure), 1e-3, biases, folder, Log.NONE);
            run(state, refit, structure);
            PrunedState fitted = PrunedState.of(structure, state.plan(), refit.updates());
            mean[biases ? 1 : 0] = meanError(fitted, structure);
        }

        assertThat(mean[1]).isLessThan(0.1 * mean[0]);
    }

    private void run(PrunedState state, SequentialRun.Editor editor, Structure structure) {
        Reference reference =
                new Reference(Runs.calibrator(structure.analysis().program().model(), folder), null);
        SequentialRun.run(Runs.calibrator(state.model(), folder), reference, Runs.rows(40), editor);
    }

    /** The norm of the mean error after the last block. */
    private double meanError(PrunedState state, Structure structure) {
        double[] last = new double[1];
        PrunedLinears sites = new PrunedLinears(state, LinearLayers.of(structure));
        run(
                state,
                new SequentialRun.Editor() {
                    @Override
                    public boolean wants(LoweredLinear linear) {
                        PrunedLinear site = sites.of(linear);
                        return site != null
                                && ResidualRefit.layers(structure, LinearLayers.of(structure))
                                        .contains(site.dense());
                    }

                    @Override
                    public Map<String, Tensor> edit(List<LoweredLinear> sharing, InputStatistics statistics) {
                        double sum = 0;
                        for (float error : statistics.totalError().toFloats()) {
                            sum += (double) error * error;
                        }
                        last[0] = Math.sqrt(sum) / statistics.positions();
                        return Map.of();
                    }
                },
                structure);
        return last[0];
    }
}
