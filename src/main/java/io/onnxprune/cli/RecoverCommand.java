package io.onnxprune.cli;

import io.onnxprune.algebra.Blas;
import io.onnxprune.compiler.Recoverer;
import io.onnxprune.diag.CacheFolder;
import io.onnxprune.diag.UsageException;
import io.onnxprune.emit.ModelFolder;
import io.onnxprune.emit.OutputTarget;
import io.onnxprune.recover.Look;
import io.onnxprune.recover.TrainingOptions;
import io.onnxprune.runtime.OnnxRuntime;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.Set;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code onnx-prune recover}: trains a model so that it makes up for what pruning took. */
@Command(
        name = "recover",
        mixinStandardHelpOptions = true,
        versionProvider = Main.Version.class,
        description = "Trains a model, by default low-rank adapters that are merged into its weights.")
final class RecoverCommand implements Callable<Integer> {
    /** What {@code --train} takes. */
    enum Mode {
        lora,
        full,
        norms,
        bias
    }

    /** What {@code --schedule} takes. */
    enum Schedule {
        constant,
        linear,
        cosine
    }

    private static final Set<String> TARGETS = Set.of("attention", "ffn");

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
            description = "jsonl with input_ids or text, .npy of token ids, or plain text to train on")
    private Path data;

    @Option(
            names = "--eval",
            paramLabel = "FILE",
            description = "held-out data (default: a twentieth of the rows, at most 64, is left out)")
    private Path evaluation;

    @Option(
            names = "--tokenizer",
            paramLabel = "FILE",
            description = "tokenizer.json for text (default: the one beside the model)")
    private Path tokenizer;

    @Option(names = "--seq-len", paramLabel = "N", description = "tokens of a row (default: ${DEFAULT-VALUE})")
    private int length = 256;

    @Option(
            names = "--train",
            paramLabel = "lora|full|norms|bias",
            description = "what is trained: low-rank adapters, all weights of the blocks, scales of norms, or biases"
                    + " (default: ${DEFAULT-VALUE})")
    private Mode mode = Mode.lora;

    @Option(
            names = "--distill",
            paramLabel = "TEACHER",
            description = "learn the predictions of this model, such as the one before pruning, not only the data")
    private Path teacher;

    @Option(
            names = "--distill-weight",
            paramLabel = "X",
            description = "share of the teacher in the loss; the data have the rest (default: ${DEFAULT-VALUE})")
    private double distillation = 1;

    @Option(
            names = "--temperature",
            paramLabel = "X",
            description =
                    "what logits are divided by when they are compared with the teacher's (default: ${DEFAULT-VALUE})")
    private double temperature = 1;

    @Option(names = "--rank", paramLabel = "N", description = "rank of adapters (default: ${DEFAULT-VALUE})")
    private int rank = 8;

    @Option(
            names = "--alpha",
            paramLabel = "X",
            description = "adapters count alpha / rank (default: ${DEFAULT-VALUE})")
    private double alpha = 16;

    @Option(
            names = "--dropout",
            paramLabel = "X",
            description = "share of adapters' inputs that are zero in a step (default: ${DEFAULT-VALUE})")
    private double dropout = 0.05;

    @Option(
            names = "--targets",
            split = ",",
            paramLabel = "WORD",
            description = "which products: attention, ffn (default: both)")
    private List<String> targets = List.of("attention", "ffn");

    @Option(names = "--lr", paramLabel = "X", description = "highest learning rate (default: ${DEFAULT-VALUE})")
    private double learningRate = 1e-4;

    @Option(
            names = "--schedule",
            paramLabel = "constant|linear|cosine",
            description = "how the learning rate falls (default: ${DEFAULT-VALUE})")
    private Schedule schedule = Schedule.linear;

    @Option(
            names = "--warmup",
            paramLabel = "N",
            description = "steps in which the learning rate rises (default: a tenth of all, at most 100)")
    private Integer warmup;

    @Option(names = "--weight-decay", paramLabel = "X", description = "of AdamW (default: ${DEFAULT-VALUE})")
    private double weightDecay;

    @Option(
            names = "--clip",
            paramLabel = "X",
            description = "largest norm of the gradients, 0 for any (default: ${DEFAULT-VALUE})")
    private double clip = 1;

    @Option(names = "--batch", paramLabel = "N", description = "rows of a step (default: ${DEFAULT-VALUE})")
    private int batch = 64;

    @Option(
            names = "--micro-batch",
            paramLabel = "N",
            description = "rows that are run at a time (default: ${DEFAULT-VALUE})")
    private int microBatch = 16;

    @Option(
            names = "--epochs",
            paramLabel = "N",
            description = "how often the data are gone through (default: ${DEFAULT-VALUE})")
    private int epochs = 2;

    @Option(names = "--steps", paramLabel = "N", description = "steps, whatever the epochs")
    private Integer steps;

    @Option(
            names = "--eval-every",
            paramLabel = "N",
            description = "steps between looks at the held-out loss (default: ${DEFAULT-VALUE})")
    private int evaluateEvery = 25;

    @Option(
            names = "--patience",
            paramLabel = "N",
            description = "looks without a new best after which training ends, 0 for never (default: ${DEFAULT-VALUE})")
    private int patience;

    @Option(names = "--seed", paramLabel = "N", description = "of every random choice (default: ${DEFAULT-VALUE})")
    private long seed;

    @Option(names = "--external-data", description = "keep weights in a file of their own")
    private boolean externalData;

    @Option(
            names = "--work-dir",
            paramLabel = "DIR",
            description = "folder for graphs and checkpoints (default: in the user's cache folder)")
    private Path workDir;

    @Option(
            names = "--export-training-artifacts",
            paramLabel = "DIR",
            description =
                    "also leave the graphs and the checkpoint that ONNX Runtime's training API begins with, for a training loop"
                            + " of your own")
    private Path artifacts;

    @Option(names = "--resume", description = "go on where a training like this one was stopped (same --work-dir)")
    private boolean resume;

    @Mixin
    private RuntimeArguments runtime = new RuntimeArguments();

    @Mixin
    private OutputArguments output = new OutputArguments();

    @Override
    public Integer call() {
        Console console =
                output.console(spec.commandLine().getOut(), spec.commandLine().getErr());
        TrainingOptions options = options();
        if (length < 2) {
            throw new UsageException("--seq-len takes 2 or more, since a prediction takes two tokens, not " + length);
        }
        ModelFolder input = ModelFolder.of(model);
        output.check(Inputs.of(data, evaluation, tokenizer).with(input));
        Recoverer.Job job = new Recoverer.Job(
                input,
                OutputTarget.of(input, out),
                data,
                Optional.ofNullable(evaluation),
                Optional.ofNullable(tokenizer),
                Optional.ofNullable(teacher).map(path -> ModelFolder.of(path).model()),
                length,
                options,
                externalData,
                resume,
                Optional.ofNullable(artifacts),
                workDir == null ? CacheFolder.path().resolve("work") : workDir);
        Blas.setThreads(runtime.threads());
        try (OnnxRuntime ort = OnnxRuntime.open(runtime.options())) {
            Recoverer.Report report = Recoverer.run(job, ort, console);
            print(report, console);
            output.writeJson(report.toJson());
        }
        return 0;
    }

    private TrainingOptions options() {
        targets.stream().filter(word -> !TARGETS.contains(word)).findFirst().ifPresent(word -> {
            throw new UsageException("--targets takes attention and ffn, not \"" + word + '"');
        });
        return new TrainingOptions(
                TrainingOptions.Mode.valueOf(mode.name().toUpperCase(Locale.ROOT)),
                rank,
                alpha,
                dropout,
                targets.contains("attention"),
                targets.contains("ffn"),
                learningRate,
                TrainingOptions.Schedule.valueOf(schedule.name().toUpperCase(Locale.ROOT)),
                warmup == null ? OptionalInt.empty() : OptionalInt.of(warmup),
                weightDecay,
                clip,
                batch,
                microBatch,
                epochs,
                steps == null ? OptionalInt.empty() : OptionalInt.of(steps),
                evaluateEvery,
                patience,
                distillation,
                temperature,
                seed);
    }

    private static void print(Recoverer.Report report, Console console) {
        Look before = report.result().curve().get(0);
        Table table = new Table("", ">before", ">after");
        table.row(
                "held-out perplexity",
                String.format(Locale.ROOT, "%.4f", Math.exp(before.heldOut())),
                String.format(Locale.ROOT, "%.4f", Math.exp(report.result().best())));
        console.print(table.toString());
        console.print(String.format(
                Locale.ROOT,
                "trained %,d parameters on %,d rows; %,d held out",
                report.result().trained(),
                report.rows(),
                report.heldOut()));
        report.emission().files().forEach(file -> console.print("wrote " + file));
    }
}
