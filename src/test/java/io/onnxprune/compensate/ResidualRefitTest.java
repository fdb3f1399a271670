// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.RecordedLog;
import io.onnxprune.TestModels;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.LoweredLinear;
import io.onnxprune.calibrate.SequentialRun;
import io.onnxprune.calibrate.SequentialRun.InputStatistics;
import io.onnxprune.calibrate.SequentialRun.Reference;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Structure;
import io.onnxprune.eval.CausalLm;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.plan.Plan;
import io.onnxprune.rewrite.PrunedState;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("ort")
class ResidualRefitTest {
    @TempDir
    private Path folder;

    /** Measures how much each edit reduces the error of the stream: ‖E‖² − ‖E − XΔW‖². */
    private record Watched(ResidualRefit inner, PrunedLinears sites, Map<String, Double> gains)
            implements SequentialRun.Editor {
        @Override
        public boolean wants(LoweredLinear linear) {
            return inner.wants(linear);
        }

        @Override
        public Map<String, Tensor> edit(List<LoweredLinear> sharing, InputStatistics statistics) {
            Map<String, Tensor> edited = inner.edit(sharing, statistics);
            for (LoweredLinear linear : sharing) {
                if (edited.containsKey(linear.weight())) {
                    PrunedLinear site = sites.of(linear);
                    int n = linear.input().width();
                    int out = linear.output().width();
                    try (Matrix a = Matrix.of(statistics.secondMoment().asFloats(), n, n);
                            Matrix c = Matrix.of(statistics.error().asFloats(), n, out);
                            Matrix before = site.read();
                            Matrix after = WeightStore.read(
                                    edited.get(linear.weight()), site.dense().axis())) {
                        double along = 0;
                        for (int i = 0; i < n; i++) {
                            for (int j = 0; j < out; j++) {
                                along += c.get(i, j) * (after.get(i, j) - before.get(i, j));
                            }
                        }
                        gains.put(linear.node(), 2 * along - Runs.error(a, after, before));
                    }
                }
            }
            return edited;
        }
    }

    private ResidualRefit refit(PrunedState state, Log log) {
        return new ResidualRefit(state, LinearLayers.of(state.structure()), 1e-3, false, folder, log);
    }

    private void run(PrunedState state, SequentialRun.Editor editor) {
        Model original = state.structure().analysis().program().model();
        Reference reference = new Reference(Runs.calibrator(original, folder), null);
        SequentialRun.run(Runs.calibrator(state.model(), folder), reference, Runs.rows(40), editor);
    }

    /** Mean square of the difference of two models' logits. */
    private static double difference(Model left, Model right) {
        long[][] tokens = Runs.rows(8).toArray(long[][]::new);
        float[] first = logits(left, tokens);
        float[] second = logits(right, tokens);
        assertThat(first).hasSameSizeAs(second);
        double sum = 0;
        for (int i = 0; i < first.length; i++) {
            sum += Math.pow(first[i] - second[i], 2);
        }
        return sum / first.length;
    }

    private static float[] logits(Model model, long[][] tokens) {
        try (CausalLm lm = CausalLm.of(TestModels.runtime().open(model, true), model.graph())) {
            return lm.logits(tokens).toFloats();
        }
    }

    @ParameterizedTest
    @ValueSource(
            strings = {"stories-llama", "opt-f-a-bert", "gpt-neox-d", "gpt2-cb", "llama-g16-e-fp16", "falcon-mqa-d"})
    void everyBlockAndTheLogitsComeCloserToTheDenseModel(String name) {
        Structure structure = TestModels.structure(name);
        PrunedState state = PrunedState.of(structure, Runs.plan(structure, 0.2, "heads", "ffn"), Map.of());
        ResidualRefit refit = refit(state, Log.NONE);
        Map<String, Double> gains = new LinkedHashMap<>();
        run(state, new Watched(refit, new PrunedLinears(state, LinearLayers.of(structure)), gains));

        assertThat(gains).hasSize(structure.stream().layers() * 2);
        assertThat(gains).allSatisfy((node, gain) -> assertThat(gain).isPositive());
        assertThat(refit.updates()).hasSameSizeAs(gains);
        Model original = structure.analysis().program().model();
        Model refitted =
                PrunedState.of(structure, state.plan(), refit.updates()).model();
        assertThat(difference(original, refitted)).isLessThan(0.8 * difference(original, state.model()));
    }

    @Test
    void otherLayersCompensateForPrunedLayers() {
        Structure structure = TestModels.structure("stories-llama");
        PrunedState state =
                PrunedState.of(structure, new Plan("", Map.of(), new int[] {0, 1, 2, 4, 5}, null), Map.of());
        ResidualRefit refit = refit(state, Log.NONE);
        run(state, refit);

        assertThat(refit.updates()).hasSize(10);
        Model original = structure.analysis().program().model();
        Model refitted =
                PrunedState.of(structure, state.plan(), refit.updates()).model();
        assertThat(difference(original, refitted)).isLessThan(0.8 * difference(original, state.model()));
    }

    /** In gemma2 another normalisation follows the projections, so no output is only added to the stream. */
    @Test
    void layersNotOnlyAddedToTheStreamAreUnchangedWithAWarning() {
        Structure structure = TestModels.structure("gemma2-d");
        PrunedState state = PrunedState.of(structure, Runs.plan(structure, 0.1, "heads", "ffn"), Map.of());
        RecordedLog log = new RecordedLog();
        ResidualRefit refit = refit(state, log);
        run(state, refit);

        assertThat(refit.updates()).isEmpty();
        assertThat(log.warnings()).hasSize(1);
        assertThat(log.warnings().get(0)).contains("not refitted at 4 linear layers", "node ");
    }
}
