// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.RecordedLog;
import io.onnxprune.TestModels;
import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.Divergence;
import io.onnxprune.compensate.GateTraining.Data;
import io.onnxprune.compensate.GateTraining.Ranking;
import io.onnxprune.compensate.GateTraining.Result;
import io.onnxprune.compensate.GateTraining.Settings;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.CheckpointFile;
import io.onnxprune.plan.Allocation;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.ParameterCount;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.PositionImportance;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.plan.Scores;
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
import org.junit.jupiter.params.provider.CsvSource;

@Tag("ort")
@Tag("slow")
class GateTrainingTest {
    private static final Budget BUDGET =
            Budget.ofRatio(PruneSet.standard(), 0.3).withScope(Budget.Scope.GLOBAL);

    @TempDir
    private Path folder;

    private final List<long[]> rows = Runs.rows(64);

    private static Scores start(Structure structure) {
        return new PositionImportance().score(structure, Log.NONE);
    }

    private static Plan plan(Structure structure, Scores scores) {
        return Allocation.of(structure, scores, BUDGET, "", Log.NONE).plan();
    }

    private Result train(Structure structure, Settings settings, Optional<CheckpointFile> checkpoint, Log log) {
        PrunedState whole = PrunedState.whole(structure, Plan.keepAll(""));
        Calibrator dense = Runs.calibrator(structure.analysis().program().model(), folder);
        return GateTraining.run(
                Runs.model(whole, folder, log),
                new Data(dense, rows, 1),
                new Ranking(start(structure), true, scores -> plan(structure, scores)),
                settings,
                checkpoint);
    }

    /** On rows that are not trained on, also in a model that is pruned without compensation, where it can be measured from outside. */
    @ParameterizedTest
    @CsvSource({"stories-llama, -1", "opt-c, 0.01", "llama-gqa-d, 0.01", "llama-g16-e-fp16, -1"})
    void thePlanOfTrainedScoresPredictsBetterAtTheSameSize(String name, double damping) {
        Structure structure = TestModels.structure(name);

        Result result = train(structure, new Settings(4, 16, 0.1, 1, damping), Optional.empty(), Log.NONE);

        assertThat(result.after()).isPositive().isLessThan(0.98 * result.before());
        Plan before = plan(structure, start(structure));
        Plan after = plan(structure, result.scores());
        ParameterCount count = ParameterCount.of(structure);
        double whole = count.dense().parameters();
        assertThat(count.under(after).parameters() / whole)
                .isCloseTo(count.under(before).parameters() / whole, within(0.01));
        if (damping < 0) {
            assertThat(divergence(structure, before)).isCloseTo(result.before(), within(1e-3 * result.before()));
            assertThat(divergence(structure, after)).isCloseTo(result.after(), within(1e-3 * result.after()));
        }
    }

    private double divergence(Structure structure, Plan plan) {
        Calibrator dense = Runs.calibrator(structure.analysis().program().model(), folder);
        Calibrator model =
                Runs.calibrator(PrunedState.of(structure, plan, Map.of()).model(), folder);
        try (Divergence divergence = Divergence.from(dense, model, rows.subList(56, 64))) {
            return Arrays.stream(model.losses(divergence)).average().orElseThrow();
        }
    }

    @Test
    void aStoppedRunGoesOnWithTheSameResult() {
        Structure structure = TestModels.structure("stories-llama");
        Settings settings = new Settings(3, 16, 0.1, 1, -1);
        CheckpointFile file = new CheckpointFile(folder.resolve("run.safetensors"));
        Result whole = train(structure, settings, Optional.of(file), Log.NONE);
        RecordedLog log = new RecordedLog();

        Result resumed = train(structure, settings, Optional.of(file), log);

        assertThat(log.lines()).anyMatch(line -> line.contains("gates resume: 2 epochs are done"));
        assertThat(resumed.after()).isEqualTo(whole.after());
        whole.scores()
                .units()
                .forEach((name, scores) ->
                        assertThat(resumed.scores().units().get(name)).containsExactly(scores));
    }

    /** Start scores win where training does not help. */
    @Test
    void scoresThatDoNotHelpAreNotTaken() {
        Structure structure = TestModels.structure("stories-llama");
        Scores start = start(structure);

        Result result = train(structure, new Settings(1, 64, 1e-6, 1, 0.01), Optional.empty(), Log.NONE);

        assertThat(result.after()).isEqualTo(result.before());
        start.units()
                .forEach((name, scores) ->
                        assertThat(result.scores().units().get(name)).containsExactly(scores));
    }

    @Test
    void oneRowIsTooFew() {
        Structure structure = TestModels.structure("llama-gqa-d");
        PrunedState whole = PrunedState.whole(structure, Plan.keepAll(""));
        PrunedModel model = Runs.model(whole, folder, Log.NONE);
        Ranking ranking = new Ranking(start(structure), true, scores -> plan(structure, scores));

        assertThatThrownBy(() -> GateTraining.run(
                        model,
                        new Data(model.calibrator(), rows.subList(0, 1), 1),
                        ranking,
                        new Settings(1, 1, 0.1, 1, 0.01),
                        Optional.empty()))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("there is only one row");
    }
}
