// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import com.fasterxml.jackson.annotation.JsonUnwrapped;
import io.onnxprune.api.ModelEvaluator;
import io.onnxprune.diag.UsageException;
import io.onnxprune.emit.RunFiles;
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
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code onnx-prune eval}: measures perplexity and speed of one model, or of two for comparison. */
@Command(
        name = "eval",
        mixinStandardHelpOptions = true,
        versionProvider = Main.Version.class,
        description = "Measures perplexity on token data, and prefill and decode speed.")
final class EvalCommand implements Callable<Integer> {
    /** The JSON report. docs/json.md describes the fields. */
    private record Report(@JsonUnwrapped Result model, Result against) {}

    /** The result of one model. */
    private record Result(
            String model,
            double perplexity,
            double nll,
            long tokens,
            long rows,
            Double prefillTokensPerSecond,
            Double decodeTokensPerSecond,
            long bytes) {
        static Result of(Path path, Evaluation found, long bytes) {
            return new Result(
                    path.toString(),
                    found.perplexity(),
                    found.nll(),
                    found.tokens(),
                    found.rows(),
                    orNull(found.prefillTokensPerSecond()),
                    orNull(found.decodeTokensPerSecond()),
                    bytes);
        }

        private static Double orNull(OptionalDouble value) {
            return value.isPresent() ? value.getAsDouble() : null;
        }
    }

    @Spec
    private CommandSpec spec;

    @Parameters(paramLabel = "MODEL", description = "a model file, or a folder with model.onnx")
    private Path model;

    @Option(names = "--against", paramLabel = "OTHER", description = "a second model to compare")
    private Path against;

    @Option(
            names = "--data",
            required = true,
            paramLabel = "FILE",
            description = "jsonl with input_ids or text, .npy of token ids, or plain text")
    private Path data;

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
        Map<Path, ModelEvaluator> evaluators = new LinkedHashMap<>();
        RunFiles files = new RunFiles();
        for (Path path : against == null ? List.of(model) : List.of(model, against)) {
            ModelEvaluator evaluator = evaluator(path);
            evaluators.put(path, evaluator);
            files.with(evaluator.files());
        }
        output.check(files);
        Table table = new Table(
                "model", ">perplexity", ">nll", ">tokens", ">prefill tok/s", ">decode tok/s", ">weight bytes");
        List<Result> results = new ArrayList<>();
        evaluators.forEach((path, evaluator) -> {
            Evaluation found = evaluator.run(console);
            long bytes = ModelWriter.bytes(ModelReader.read(evaluator.model()).graph());
            results.add(Result.of(path, found, bytes));
            table.row(
                    path,
                    number(OptionalDouble.of(found.perplexity()), "%.4f"),
                    number(OptionalDouble.of(found.nll()), "%.5f"),
                    found.tokens(),
                    number(found.prefillTokensPerSecond(), "%.0f"),
                    number(found.decodeTokensPerSecond(), "%.0f"),
                    bytes);
        });
        console.print(table);
        output.writeJson(new Report(results.get(0), results.size() > 1 ? results.get(1) : null));
        return 0;
    }

    private ModelEvaluator evaluator(Path path) {
        ModelEvaluator.Builder builder = ModelEvaluator.builder(path, data)
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
        return builder.build();
    }

    private static String number(OptionalDouble value, String format) {
        return value.isPresent() ? String.format(Locale.ROOT, format, value.getAsDouble()) : "-";
    }
}
