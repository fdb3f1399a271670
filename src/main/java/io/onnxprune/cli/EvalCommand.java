// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import com.fasterxml.jackson.annotation.JsonUnwrapped;
import io.onnxprune.api.ModelEvaluator;
import io.onnxprune.diag.UsageException;
import io.onnxprune.emit.RunFiles;
import io.onnxprune.eval.ChoiceAccuracy;
import io.onnxprune.eval.EvalOptions;
import io.onnxprune.eval.Evaluation;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.onnx.ModelWriter;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.OptionalDouble;
import java.util.concurrent.Callable;
import java.util.function.LongFunction;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code onnx-prune eval}: measures one model, or two for comparison. */
@Command(
        name = "eval",
        mixinStandardHelpOptions = true,
        versionProvider = Main.Version.class,
        description = "Measures perplexity on token data, and prefill and decode speed; or how often a model finds the"
                + " right one of several options.")
final class EvalCommand implements Callable<Integer> {
    /** The JSON report. docs/json.md describes the fields. */
    private record Report(@JsonUnwrapped Result model, Result against) {}

    /** The result of one model: on rows, or on questions. */
    private record Result(
            String model,
            Double perplexity,
            Double nll,
            Long tokens,
            Long rows,
            Double prefillTokensPerSecond,
            Double decodeTokensPerSecond,
            Choices choices,
            long bytes) {
        static Result of(String model, Evaluation found, long bytes) {
            return new Result(
                    model,
                    found.perplexity(),
                    found.nll(),
                    found.tokens(),
                    found.rows(),
                    orNull(found.prefillTokensPerSecond()),
                    orNull(found.decodeTokensPerSecond()),
                    null,
                    bytes);
        }

        static Result of(String model, ChoiceAccuracy found, long bytes) {
            return new Result(model, null, null, null, null, null, null, Choices.of(found), bytes);
        }
    }

    /** The result on questions. */
    private record Choices(
            int questions,
            double accuracy,
            Double accuracyStderr,
            double accuracyNorm,
            Double accuracyNormStderr,
            String normalisedBy,
            double chance,
            long tokens) {
        static Choices of(ChoiceAccuracy found) {
            return new Choices(
                    found.questions(),
                    found.accuracy(),
                    orNull(found.accuracyError()),
                    found.normalised(),
                    orNull(found.normalisedError()),
                    found.ofText() ? "bytes" : "tokens",
                    found.chance(),
                    found.tokens());
        }
    }

    private static Double orNull(OptionalDouble value) {
        return value.isPresent() ? value.getAsDouble() : null;
    }

    @Spec
    private CommandSpec spec;

    @Parameters(paramLabel = "MODEL", description = "a model file, or a folder with model.onnx")
    private Path model;

    @Option(names = "--against", paramLabel = "OTHER", description = "a second model to compare")
    private Path against;

    @Option(
            names = "--data",
            paramLabel = "FILE",
            description = "rows for perplexity: jsonl with input_ids or text, .npy of token ids, or plain text")
    private Path data;

    @Option(
            names = "--choices",
            paramLabel = "FILE",
            description = "in place of --data, questions with options: a jsonl with query (or question, ctx, context,"
                    + " prompt), choices (or endings, options) and label (or answer, answerKey, gold) on each line; or with"
                    + " input_ids, and lists of ids as choices")
    private Path choices;

    @Option(
            names = "--tokenizer",
            paramLabel = "FILE",
            description = "tokenizer.json for text (default: the one beside the model)")
    private Path tokenizer;

    @Option(
            names = "--adapter",
            paramLabel = "FILE",
            description = "run the model with this .onnx_adapter, written by recover --keep-adapters")
    private Path adapter;

    @Mixin
    private SideArguments sides = new SideArguments();

    @Option(names = "--seq-len", paramLabel = "N", description = "cut rows into windows of N tokens")
    private Integer sequenceLength;

    @Option(
            names = "--stride",
            paramLabel = "S",
            description =
                    "begin a window every S tokens; what it shares with the one before is context only (default: N"
                            + " of --seq-len)")
    private Integer stride;

    @Option(
            names = "--prompt",
            paramLabel = "N",
            description = "prompt length of the speed measurement (default: 128); 0 skips it")
    private int prompt = EvalOptions.DEFAULT_PROMPT;

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
        if (adapter != null && against != null) {
            throw new UsageException("--adapter is for one model, so it does not go with --against; run eval for each");
        }
        if ((data == null) == (choices == null)) {
            throw new UsageException(
                    data == null
                            ? "no data was named; add --data FILE for perplexity, or --choices FILE for questions"
                            : "--data and --choices are two measurements; run eval for each");
        }
        if (choices != null && spec.commandLine().getParseResult().hasMatchedOption("--prompt")) {
            throw new UsageException("--prompt is for the speed measurement, which goes with --data; leave it out");
        }
        Map<Path, ModelEvaluator> evaluators = new LinkedHashMap<>();
        RunFiles files = new RunFiles();
        for (Path path : against == null ? List.of(model) : List.of(model, against)) {
            ModelEvaluator evaluator = evaluator(path);
            evaluators.put(path, evaluator);
            files.with(evaluator.files());
        }
        output.check(files);
        List<Result> results = new ArrayList<>();
        evaluators.forEach((path, evaluator) -> results.add(result(path, evaluator, console)));
        console.print(data == null ? choiceTable(results) : table(results));
        output.writeJson(new Report(results.get(0), results.size() > 1 ? results.get(1) : null));
        return 0;
    }

    private Result result(Path path, ModelEvaluator evaluator, Console console) {
        LongFunction<Result> found;
        if (data == null) {
            ChoiceAccuracy accuracy = evaluator.choices(console);
            found = bytes -> Result.of(path.toString(), accuracy, bytes);
        } else {
            Evaluation evaluation = evaluator.run(console);
            found = bytes -> Result.of(path.toString(), evaluation, bytes);
        }
        return found.apply(ModelWriter.bytes(ModelReader.read(evaluator.model()).graph()));
    }

    private static Table table(List<Result> results) {
        Table table = new Table(
                "model", ">perplexity", ">nll", ">tokens", ">prefill tok/s", ">decode tok/s", ">weight bytes");
        results.forEach(found -> table.row(
                found.model,
                number(found.perplexity, "%.4f"),
                number(found.nll, "%.5f"),
                found.tokens,
                number(found.prefillTokensPerSecond, "%.0f"),
                number(found.decodeTokensPerSecond, "%.0f"),
                found.bytes));
        return table;
    }

    private static Table choiceTable(List<Result> results) {
        Table table = new Table(
                "model",
                ">accuracy",
                ">by " + (results.get(0).choices.normalisedBy.equals("bytes") ? "byte" : "token"),
                ">guessing",
                ">questions",
                ">weight bytes");
        results.forEach(found -> table.row(
                found.model,
                share(found.choices.accuracy, found.choices.accuracyStderr),
                share(found.choices.accuracyNorm, found.choices.accuracyNormStderr),
                number(found.choices.chance, "%.4f"),
                found.choices.questions,
                found.bytes));
        return table;
    }

    /** A share with its standard error. */
    private static String share(double value, Double error) {
        return number(value, "%.4f") + (error == null ? "" : " ±" + number(error, "%.4f"));
    }

    private ModelEvaluator evaluator(Path path) {
        ModelEvaluator.Builder builder = ModelEvaluator.builder(path, data == null ? choices : data)
                .prompt(prompt)
                .sides(sides.files())
                .runtime(precision.ofEvaluation(runtime.options()));
        if (tokenizer != null) {
            builder.tokenizer(tokenizer);
        }
        if (adapter != null) {
            builder.adapter(adapter);
        }
        if (sequenceLength != null) {
            builder.sequenceLength(sequenceLength);
        }
        if (stride != null) {
            builder.stride(stride);
        }
        return builder.build();
    }

    private static String number(Double value, String format) {
        return value == null ? "-" : String.format(Locale.ROOT, format, value);
    }
}
