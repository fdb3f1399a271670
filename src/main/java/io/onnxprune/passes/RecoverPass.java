// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.passes;

import io.onnxprune.diag.UsageException;
import io.onnxprune.option.Named;
import io.onnxprune.option.Option;
import io.onnxprune.pass.DenseModel;
import io.onnxprune.pass.Fact;
import io.onnxprune.pass.Pass;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.pass.ReportEntry;
import io.onnxprune.recover.Targets;
import io.onnxprune.recover.TrainingOptions;
import io.onnxprune.recover.TrainingReport;
import io.onnxprune.recover.TrainingRows;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.Set;

/** Trains the pruned model. */
@Named(
        value = "recover",
        summary =
                "Trains the pruned model through ONNX Runtime's training API: by default to make the predictions of the dense one, on"
                        + " the calibration rows.")
public record RecoverPass(Rows rows, Teacher teacher, Trained trained, Optimizer optimizer, Loop loop) implements Pass {
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

    /** What is learned from the dense model. */
    public record Teacher(
            @Option(
                    "Weight of the KL divergence from the predictions of the dense model, at most 1; the cross-entropy of the"
                            + " rows has the rest.")
            double distillWeight,

            @Option("Logits are divided by this where they are compared with the dense model's.")
            double temperature) {
        /** Nothing else. */
        public Teacher() {
            this(1, 1);
        }
    }

    /** What is trained. */
    public record Trained(
            @Option("All weights of the blocks, low-rank adapters that are merged, the scales of norms, or biases.")
            TrainingOptions.Mode train,

            @Option(value = "For lora.", min = 1) int rank,

            @Option("For lora: the change is multiplied by alpha / rank.")
            double alpha,

            @Option("For lora: share of adapters' inputs that are zero in a step, less than 1.")
            double dropout,

            @Option(
                    "The linear layers that are trained: attention, ffn, all for both, or patterns of names of weights, nodes or"
                            + " layers.")
            List<String> targets) {
        /** All weights. */
        public Trained() {
            this(TrainingOptions.Mode.FULL, 8, 16, 0, List.of("attention", "ffn"));
        }
    }

    /** AdamW. */
    public record Optimizer(
            @Option("Highest learning rate, less than 1.") double lr,
            @Option("How the learning rate falls.") TrainingOptions.Schedule schedule,

            @Option("Steps in which the learning rate rises; without, a tenth of all, at most 100.")
            OptionalInt warmup,

            @Option("Of AdamW, less than 1.") double weightDecay,

            @Option("Largest norm of the gradients; 0 for any.")
            double clip) {
        /** Full training of small models. */
        public Optimizer() {
            this(2e-3, TrainingOptions.Schedule.COSINE, OptionalInt.empty(), 0, 1);
        }
    }

    /** How long training goes on. */
    public record Loop(
            @Option(value = "Rows of a step.", min = 1) int batch,

            @Option(value = "Rows that are run at a time.", min = 1)
            int microBatch,

            @Option(value = "How often the rows are gone through.", min = 1)
            int epochs,

            @Option(value = "Number of steps, whatever the epochs.", min = 1)
            OptionalInt steps,

            @Option(value = "Steps between evaluations of the loss.", min = 1)
            int evalEvery,

            @Option("Evaluations without a new best after which training ends; 0 for never.")
            int patience) {
        /** Five epochs. */
        public Loop() {
            this(16, 16, 5, OptionalInt.empty(), 10, 0);
        }
    }

    /** Full training on the predictions of the dense model. */
    public RecoverPass() {
        this(new Rows(), new Teacher(), new Trained(), new Optimizer(), new Loop());
    }

    public RecoverPass {
        options(teacher, trained, optimizer, loop, 0);
    }

    /** The file to train on; empty where that is the calibration rows. */
    public Optional<Path> file() {
        return rows.data.equals(CALIBRATION_ROWS) ? Optional.empty() : Optional.of(Path.of(rows.data));
    }

    /**
     * These options in the form of the training.
     *
     * @throws UsageException if a value is out of range
     */
    public TrainingOptions options(long seed) {
        return options(teacher, trained, optimizer, loop, seed);
    }

    private static TrainingOptions options(
            Teacher teacher, Trained trained, Optimizer optimizer, Loop loop, long seed) {
        return new TrainingOptions(
                trained.train,
                trained.rank,
                trained.alpha,
                trained.dropout,
                Targets.of(trained.targets),
                optimizer.lr,
                optimizer.schedule,
                optimizer.warmup,
                optimizer.weightDecay,
                optimizer.clip,
                loop.batch,
                loop.microBatch,
                loop.epochs,
                loop.steps,
                loop.evalEvery,
                loop.patience,
                teacher.distillWeight,
                teacher.temperature,
                0,
                seed);
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
