// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.passes;

import io.onnxprune.diag.PathText;
import io.onnxprune.option.Named;
import io.onnxprune.option.Option;
import io.onnxprune.pass.DenseModel;
import io.onnxprune.pass.Fact;
import io.onnxprune.pass.Pass;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.pass.ReportEntry;
import io.onnxprune.recover.TrainingOptions;
import io.onnxprune.recover.TrainingOptions.Distillation;
import io.onnxprune.recover.TrainingOptions.Loop;
import io.onnxprune.recover.TrainingOptions.Optimizer;
import io.onnxprune.recover.TrainingOptions.Trained;
import io.onnxprune.recover.TrainingReport;
import io.onnxprune.recover.TrainingRows;
import java.nio.file.Path;
import java.util.Locale;
import java.util.Optional;
import java.util.Set;

/** Trains the pruned model. */
@Named(
        value = "recover",
        summary =
                "Trains the pruned model through ONNX Runtime's training API: by default to make the predictions of the dense one, on"
                        + " the calibration rows.")
public record RecoverPass(Rows rows, Distillation teacher, Trained trained, Optimizer optimizer, Loop loop)
        implements Pass {
    /** The word for calibration rows. */
    public static final String CALIBRATION_ROWS = "calibration";

    /** The rows to train on. */
    public record Rows(
            @Option("The rows to train on: calibration, or a file.")
            String data,

            @Option(value = "For a file: tokens of a row at most.", min = 2)
            int seqLen) {
        /** The calibration rows. */
        public Rows() {
            this(CALIBRATION_ROWS, 256);
        }
    }

    /** Full training on the predictions of the dense model. */
    public RecoverPass() {
        this(new Rows(), new Distillation(), new Trained(), new Optimizer(), new Loop());
    }

    /** The file to train on; empty where that is the calibration rows. */
    public Optional<Path> file() {
        return rows.data.equals(CALIBRATION_ROWS) ? Optional.empty() : Optional.of(PathText.of(rows.data));
    }

    /** These options in the form of the training. */
    public TrainingOptions options(long seed) {
        return new TrainingOptions(trained, optimizer, loop, teacher, 0, seed);
    }

    @Override
    public Set<Fact> requires() {
        return file().isPresent() ? Set.of(Fact.PLAN) : Set.of(Fact.PLAN, Fact.ROWS);
    }

    @Override
    public Effect effect() {
        return Effect.CHANGES_MODEL;
    }

    @Override
    public boolean differentiates() {
        return true;
    }

    @Override
    public void check(DenseModel dense, PassContext context) {
        context.runtime().requireTraining();
    }

    @Override
    public PruningState run(PruningState state, PassContext context) {
        if (state.prunesNothing()) {
            return state;
        }
        TrainingRows data = file().isPresent()
                ? context.data().training().orElseThrow()
                : TrainingRows.of(context.statistics().rows());
        StateRecovery.Result result = StateRecovery.of(
                state.pruned(),
                data,
                options(context.settings().seed()).withBatchOf(data.rows().size()),
                context);
        return state.withWeights(result.updates()).with(entry(result.report()));
    }

    private static ReportEntry entry(TrainingReport report) {
        return ReportEntry.of(
                "recovery",
                String.format(
                        Locale.ROOT,
                        "%,d parameters were trained on %,d rows: loss %.4f -> %.4f nats a token",
                        report.trained(),
                        report.rows(),
                        report.first(),
                        report.best()),
                report.toJson());
    }
}
