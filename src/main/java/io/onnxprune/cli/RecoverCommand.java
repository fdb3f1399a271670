// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import io.onnxprune.api.Recoverer;
import io.onnxprune.recover.EvalPoint;
import io.onnxprune.recover.TrainingReport;
import java.nio.file.Path;
import java.util.Locale;
import java.util.concurrent.Callable;
import picocli.CommandLine.ArgGroup;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code onnx-prune recover}: trains a pruned model to recover its quality. */
@Command(
        name = "recover",
        mixinStandardHelpOptions = true,
        versionProvider = Main.Version.class,
        description = "Trains a model, by default low-rank adapters that are merged into its weights.")
final class RecoverCommand implements Callable<Integer> {
    @Spec
    private CommandSpec spec;

    @Parameters(paramLabel = "MODEL", description = "a model file, or a folder with model.onnx")
    private Path model;

    @Option(
            names = {"-o", "--output"},
            required = true,
            paramLabel = "OUT",
            description = "model file (ends in .onnx) or folder to write")
    private Path out;

    @Option(
            names = "--data",
            required = true,
            paramLabel = "FILE",
            description = "training data: jsonl with input_ids, text, or prompts with answers (instruction,"
                    + " input and output; prompt and completion), .npy of token ids, or plain text")
    private Path data;

    @Option(
            names = "--eval",
            paramLabel = "FILE",
            description = "held-out data (default: a twentieth of the rows, at most 64, is held out)")
    private Path evaluation;

    @Option(
            names = "--tokenizer",
            paramLabel = "FILE",
            description = "tokenizer.json for text (default: the one beside the model)")
    private Path tokenizer;

    @Option(names = "--seq-len", paramLabel = "N", description = "maximum tokens per row (default: ${DEFAULT-VALUE})")
    private int length = 256;

    @Option(
            names = "--distill",
            paramLabel = "TEACHER",
            description = "teacher: learn the predictions of this model, such as the dense model")
    private Path teacher;

    @Option(
            names = "--schedule",
            paramLabel = "constant|linear|cosine",
            description = "decay of the learning rate (default: linear)")
    private String schedule;

    @Option(names = "--steps", paramLabel = "N", description = "number of steps, overrides the epochs")
    private Integer steps;

    @Option(names = "--seed", paramLabel = "N", description = "seed of all random numbers (default: ${DEFAULT-VALUE})")
    private long seed;

    @Option(
            names = "--keep-adapters",
            description = "do not merge the adapters: write the model with inputs for them, and the adapters to"
                    + " an .onnx_adapter beside it")
    private boolean keepAdapters;

    @Option(names = "--external-data", description = "keep weights outside the model file")
    private boolean externalData;

    @Option(
            names = "--work-dir",
            paramLabel = "DIR",
            description = "folder for graphs and checkpoints (default: in the user's cache folder)")
    private Path workDir;

    @Option(
            names = "--export-training-artifacts",
            paramLabel = "DIR",
            description = "also write the graphs and the first checkpoint for ONNX Runtime's training API, for"
                    + " your own training loop")
    private Path artifacts;

    @Option(names = "--resume", description = "continue a stopped training with the same options (same --work-dir)")
    private boolean resume;

    @ArgGroup(validate = false, exclusive = false, heading = "%nTraining:%n")
    private TrainingArguments training = new TrainingArguments();

    @Mixin
    private RuntimeArguments runtime = new RuntimeArguments();

    @Mixin
    private PrecisionArguments precision = new PrecisionArguments();

    @Mixin
    private OutputArguments output = new OutputArguments();

    @Override
    public Integer call() {
        Console console =
                output.console(spec.commandLine().getOut(), spec.commandLine().getErr());
        Recoverer recoverer = recoverer();
        output.check(recoverer.files());
        Recoverer.Report report = recoverer.run(console);
        print(report, console);
        output.writeJson(report.toJson());
        return 0;
    }

    private Recoverer recoverer() {
        Recoverer.Builder builder = Recoverer.builder(model, data, out)
                .sequenceLength(length)
                .keepAdapters(keepAdapters)
                .externalData(externalData)
                .resume(resume)
                .seed(seed)
                .runtime(precision.of(runtime.options()));
        training.given(schedule, steps).forEach(builder::training);
        if (evaluation != null) {
            builder.evaluation(evaluation);
        }
        if (tokenizer != null) {
            builder.tokenizer(tokenizer);
        }
        if (teacher != null) {
            builder.teacher(teacher);
        }
        if (artifacts != null) {
            builder.artifacts(artifacts);
        }
        if (workDir != null) {
            builder.workFolder(workDir);
        }
        return builder.build();
    }

    private static void print(Recoverer.Report report, Console console) {
        TrainingReport training = report.training();
        EvalPoint before = training.curve().get(0);
        Table table = new Table("", ">before", ">after");
        table.row(
                "held-out perplexity",
                String.format(Locale.ROOT, "%.4f", Math.exp(before.heldOut())),
                String.format(Locale.ROOT, "%.4f", Math.exp(training.best())));
        console.print(table);
        console.print(String.format(
                Locale.ROOT,
                "trained %,d parameters on %,d rows; %,d held out",
                training.trained(),
                training.rows(),
                training.heldOut()));
        report.emission().files().forEach(file -> console.print("wrote " + Console.shown(file)));
    }
}
