// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.withinPercentage;

import io.onnxprune.RecordedLog;
import io.onnxprune.TestModels;
import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.Divergence;
import io.onnxprune.calibrate.Objective;
import io.onnxprune.compensate.KfacCorrection.Result;
import io.onnxprune.compensate.KfacCorrection.Settings;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Model;
import io.onnxprune.plan.Plan;
import io.onnxprune.rewrite.PrunedState;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("ort")
@Tag("slow")
class KfacCorrectionTest {
    private static final Settings TWO_STEPS = new Settings(2, 0.1, false, new KlDivergenceObjective());

    @TempDir
    private Path folder;

    private Result correct(PrunedState state, Settings settings, List<long[]> rows, Log log) {
        Model original = state.structure().analysis().program().model();
        return KfacCorrection.run(
                Runs.model(state, folder, log),
                new KfacCorrection.Reference(Runs.calibrator(original, folder), rows, List.of()),
                settings,
                Optional.empty());
    }

    private double divergence(PrunedState state, List<long[]> rows) {
        Calibrator model = Runs.calibrator(state.model(), folder);
        Calibrator dense =
                Runs.calibrator(state.structure().analysis().program().model(), folder);
        try (Divergence divergence = Divergence.from(dense, model, rows)) {
            return Arrays.stream(model.losses(divergence)).average().orElseThrow();
        }
    }

    /** Holds on unseen rows too. */
    @ParameterizedTest
    @ValueSource(strings = {"stories-llama", "gpt2-cb", "llama-g16-e-fp16", "gemma2-d", "qwen3-moe-d"})
    void predictionsComeCloserToThoseOfTheDenseModel(String name) {
        Structure structure = TestModels.structure(name);
        PrunedState state = PrunedState.of(structure, Runs.plan(structure, 0.2, "heads", "ffn"), Map.of());
        List<long[]> rows = Runs.rows(80);
        List<long[]> unseen = rows.subList(60, 80);

        Result result = correct(state, TWO_STEPS, rows.subList(0, 60), Log.NONE);

        PrunedState corrected = PrunedState.of(structure, state.plan(), result.updates());
        assertThat(result.updates())
                .hasSizeGreaterThanOrEqualTo(2 * structure.stream().layers());
        assertThat(result.before()).isPositive();
        assertThat(result.after()).isLessThan(0.9 * result.before());
        // The line search needs at least two batches of 30 rows.
        assertThat(divergence(corrected, rows.subList(0, 60))).isCloseTo(result.after(), withinPercentage(1));
        assertThat(divergence(corrected, unseen)).isLessThan(divergence(state, unseen));
    }

    @Test
    void allLinearLayersOfTheBlocksMayChange() {
        Structure structure = TestModels.structure("stories-llama");
        PrunedState state = PrunedState.of(structure, Runs.plan(structure, 0.2, "heads", "ffn"), Map.of());
        List<long[]> rows = Runs.rows(60);

        Result few = correct(state, new Settings(1, 0.1, false, new KlDivergenceObjective()), rows, Log.NONE);
        Result all = correct(state, new Settings(1, 0.1, true, new KlDivergenceObjective()), rows, Log.NONE);

        assertThat(few.updates()).hasSize(12);
        assertThat(all.updates()).hasSize(42);
        assertThat(all.before()).isEqualTo(few.before());
        assertThat(all.after()).isLessThan(all.before());
    }

    /** The cross-entropy decreases by as much as the result says. */
    @Test
    void theObjectiveMayBeTheNextTokensOfTheRows() {
        Structure structure = TestModels.structure("stories-llama");
        PrunedState state = PrunedState.of(structure, Runs.plan(structure, 0.2, "heads", "ffn"), Map.of());
        List<long[]> rows = Runs.rows(32);

        Result result = correct(state, new Settings(2, 0.1, false, new NextTokenObjective()), rows, Log.NONE);

        PrunedState corrected = PrunedState.of(structure, state.plan(), result.updates());
        assertThat(crossEntropy(state, rows)).isCloseTo(result.before(), withinPercentage(0.01));
        assertThat(crossEntropy(corrected, rows)).isCloseTo(result.after(), withinPercentage(0.1));
        assertThat(result.after()).isLessThan(result.before());
    }

    private double crossEntropy(PrunedState state, List<long[]> rows) {
        Calibrator model = Runs.calibrator(state.model(), folder);
        return Arrays.stream(model.losses(Objective.ofNextTokens(rows)))
                .average()
                .orElseThrow();
    }

    /** With a narrower stream and a pruned layer, the updates are still those of the dense model. */
    @Test
    void anythingMayHaveBeenPruned() {
        Structure structure = TestModels.structure("stories-llama");
        Plan narrow = Runs.plan(structure, 0.15, "hidden");
        PrunedState state =
                PrunedState.of(structure, new Plan("", narrow.keep(), new int[] {0, 1, 2, 4, 5}, null), Map.of());
        List<long[]> rows = Runs.rows(60);

        Result result = correct(state, TWO_STEPS, rows, Log.NONE);

        PrunedState corrected = PrunedState.of(structure, state.plan(), result.updates());
        assertThat(result.updates()).hasSize(10);
        assertThat(result.updates())
                .allSatisfy((weight, update) ->
                        assertThat(update.shape()).isEqualTo(weight.constant().shape()));
        assertThat(result.after()).isLessThan(0.9 * result.before());
        assertThat(divergence(corrected, rows)).isCloseTo(result.after(), withinPercentage(1));
    }

    /** More steps, whose directions are conjugate, reach a smaller KL divergence. */
    @Test
    void moreStepsComeCloser() {
        Structure structure = TestModels.structure("stories-llama");
        PrunedState state = PrunedState.of(structure, Runs.plan(structure, 0.3, "heads", "ffn"), Map.of());
        List<long[]> rows = Runs.rows(60);

        Result one = correct(state, new Settings(1, 0.1, false, new KlDivergenceObjective()), rows, Log.NONE);
        Result four = correct(state, new Settings(4, 0.1, false, new KlDivergenceObjective()), rows, Log.NONE);

        assertThat(four.before()).isEqualTo(one.before());
        assertThat(four.after()).isLessThan(0.5 * one.after());
    }

    @Test
    void linearLayersThatCannotChangeAreNamed() {
        Structure structure = TestModels.structure("llama-g16-e-int4");
        PrunedState state = PrunedState.of(structure, Runs.plan(structure, 0.1, "heads", "ffn"), Map.of());
        RecordedLog log = new RecordedLog();

        Result result = correct(state, TWO_STEPS, Runs.rows(4), log);

        assertThat(result.updates()).isEmpty();
        assertThat(result.after()).isEqualTo(result.before()).isPositive();
        assertThat(log.warnings())
                .singleElement()
                .asString()
                .contains("dimensions are corrected, such as ffn.0: node ", "plain floating-point matrix");
    }

    @Test
    void theDenseModelIsLeftUnchanged() {
        Structure structure = TestModels.structure("stories-llama");
        PrunedState state = PrunedState.whole(structure, Plan.keepAll(""));

        Result result = correct(state, TWO_STEPS, Runs.rows(20), Log.NONE);

        assertThat(result.updates()).isEmpty();
        assertThat(result.after()).isEqualTo(result.before()).isLessThan(1e-6);
    }
}
