// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.onnx.ModelPlace;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.runtime.ModelInterface;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.Session.Io;
import io.onnxprune.runtime.SideInputs;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalInt;

/** Evaluates models: perplexity and speed. The entry point of this package for commands. */
public final class Evaluator {
    private Evaluator() {}

    /**
     * Measures perplexity and, if requested, speed of a model file.
     *
     * @param model the model.onnx
     * @throws UserException when the data or the model cannot be read, do not match, or the model does not run
     */
    public static Evaluation evaluate(OnnxRuntime runtime, Path model, EvalOptions options, Log log) {
        Optional<Path> tokenizer = options.tokenizer().or(() -> tokenizerBeside(model));
        List<Example> rows = TokenData.examples(options.data(), tokenizer, options.windows());
        TokenData data =
                new TokenData(options.data(), rows.stream().map(Example::tokens).toList());
        try (SideInputs sides = sides(runtime, model, options, List.of(options.data()), log);
                CausalLm lm = opened(runtime, model, options, sides, log)) {
            data.requireVocabulary(lm.vocabulary());
            sides.require(data.rows());
            return ofExamples(lm, rows, options.promptLength(), log);
        }
    }

    /**
     * Measures how often a model file finds the right answers to questions.
     *
     * @param model the model.onnx
     * @param options with a file of questions as data
     * @throws UserException when the data or the model cannot be read, do not match, or the model does not run
     */
    public static ChoiceAccuracy choices(OnnxRuntime runtime, Path model, EvalOptions options, Log log) {
        Questions questions = Questions.read(options.data(), options.tokenizer().or(() -> tokenizerBeside(model)));
        List<long[]> rows = questions.rows().stream().map(Example::tokens).toList();
        ModelSettings settings = ModelSettings.beside(model, log);
        settings.context().ifPresent(limit -> questions.requireLength(limit, settings.contextSource()));
        try (SideInputs sides = sides(runtime, model, options, List.of(), log);
                CausalLm lm = opened(runtime, model, options, sides, log)) {
            new TokenData(options.data(), rows).requireVocabulary(lm.vocabulary());
            int longest = rows.stream().mapToInt(row -> row.length).max().orElseThrow();
            int supported = lm.longestRow(rows.get(0)[0], longest);
            if (supported > 0) {
                questions.requireLength(supported, "the longest row that it runs on");
            }
            return ChoiceAccuracy.measure(lm, questions, log);
        }
    }

    private static SideInputs sides(OnnxRuntime runtime, Path model, EvalOptions options, List<Path> rows, Log log) {
        return options.sides().open(runtime, model, interfaceOf(model), rows, options.tokenizer(), log);
    }

    /** Opens a model that gives logits. */
    private static CausalLm opened(OnnxRuntime runtime, Path model, EvalOptions options, SideInputs sides, Log log) {
        CausalLm lm = CausalLm.open(runtime, model, options.adapter(), sides, log);
        try {
            lm.graph().requireLogits();
            warnOfNoise(lm.graph(), log);
            return lm;
        } catch (UserException e) {
            lm.close();
            throw e;
        }
    }

    /**
     * Measures perplexity and, if requested, speed of an open model.
     *
     * @param rows token ids of the model's vocabulary, rows of at least two
     * @param promptLength length in tokens of the prompt for speed; empty to skip measuring speed
     * @throws UserException when the model does not run on the rows
     */
    public static Evaluation evaluate(CausalLm model, List<long[]> rows, OptionalInt promptLength, Log log) {
        return ofExamples(model, rows.stream().map(Example::whole).toList(), promptLength, log);
    }

    private static Evaluation ofExamples(CausalLm model, List<Example> rows, OptionalInt promptLength, Log log) {
        long start = System.nanoTime();
        Perplexity perplexity = Perplexity.ofExamples(model, rows, log);
        double seconds = (System.nanoTime() - start) * 1e-9;
        Optional<Latency> latency = latency(model, promptLength, log);
        return new Evaluation(
                perplexity.perplexity(),
                perplexity.nll(),
                perplexity.tokens(),
                rows.size(),
                model.vocabulary(),
                latency.map(found -> OptionalDouble.of(found.prefillTokensPerSecond()))
                        .orElse(OptionalDouble.empty()),
                latency.map(Latency::decodeTokensPerSecond).orElse(OptionalDouble.empty()),
                seconds);
    }

    private static ModelInterface interfaceOf(Path model) {
        return ModelInterface.of(ModelReader.read(model).graph());
    }

    /**
     * Says which inputs get noise in place of data.
     *
     * @throws UserException when these are the embeddings of the rows, so that nothing of the data reaches the model
     */
    static void warnOfNoise(ModelInterface graph, Log log) {
        for (Io input : graph.unknownInputs()) {
            if (graph.rows().filter(input::equals).isPresent()) {
                throw new UserException(
                        "input \"%s\" takes embeddings, and no model in the folder turns tokens into them; name one with --embeddings MODEL, or give embeddings of rows as .npy"
                                .formatted(input.name()));
            }
            log.warn(
                    input.dtype().isFloat()
                            ? "input \"%s\" does not follow from the tokens, so it gets noise; --side %s=FILE.npy gives it an entry for each row"
                                    .formatted(input.name(), input.name())
                            : "input \"%s\" (%s) does not follow from the tokens, so it gets zeros"
                                    .formatted(input.name(), input.dtype()));
        }
    }

    /** The tokenizer.json beside a model, or above its folder {@code onnx}, if there is one. */
    public static Optional<Path> tokenizerBeside(Path model) {
        return Optional.of(ModelPlace.beside(model, "tokenizer.json")).filter(Files::isRegularFile);
    }

    /**
     * Measures speed, on a shorter prompt if the model cannot take one of this length. A model that takes none at all
     * is still evaluated, with a warning.
     */
    private static Optional<Latency> latency(CausalLm model, OptionalInt promptLength, Log log) {
        if (promptLength.isEmpty()) {
            return Optional.empty();
        }
        int length = promptLength.getAsInt();
        try {
            return Optional.of(Latency.measure(model, length, log));
        } catch (UserException e) {
            return shorterPrompt(model, length, log, e);
        }
    }

    /** Measures speed on the longest prompt that the model takes, after it failed on {@code length} tokens. */
    private static Optional<Latency> shorterPrompt(CausalLm model, int length, Log log, UserException failure) {
        int possible = model.longestRow(0, length + Latency.decodedTokens(model)) - Latency.decodedTokens(model);
        if (possible < 1) {
            log.warn("speed was not measured, because the model does not run on a prompt of %d tokens"
                    .formatted(length));
            return Optional.empty();
        }
        if (possible >= length) {
            log.warn("speed was not measured, because the model does not run on a prompt of %d tokens: %s"
                    .formatted(length, failure.getMessage()));
            return Optional.empty();
        }
        try {
            log.info(
                    "speed is measured on a prompt of %d tokens, the longest that the model takes".formatted(possible));
            return Optional.of(Latency.measure(model, possible, log));
        } catch (UserException e) {
            log.warn("speed was not measured, because the model does not run on a prompt of %d tokens: %s"
                    .formatted(possible, e.getMessage()));
            return Optional.empty();
        }
    }
}
