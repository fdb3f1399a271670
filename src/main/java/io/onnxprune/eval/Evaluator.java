// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.runtime.OnnxRuntime;
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
        TokenData data = TokenData.read(
                options.data(), options.tokenizer().or(() -> tokenizerBeside(model)), options.sequenceLength());
        try (CausalLm lm = CausalLm.open(runtime, model, options.adapter(), log)) {
            data.requireVocabulary(lm.vocabulary());
            return evaluate(lm, data.rows(), options.promptLength(), log);
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
        long start = System.nanoTime();
        Perplexity perplexity = Perplexity.measure(model, rows, log);
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

    /** The tokenizer.json in the folder of a model, if there is one. */
    public static Optional<Path> tokenizerBeside(Path model) {
        return Optional.of(model.resolveSibling("tokenizer.json")).filter(Files::isRegularFile);
    }

    /** Measures speed. A model that cannot take a prompt of this length is still evaluated, with a warning. */
    private static Optional<Latency> latency(CausalLm model, OptionalInt promptLength, Log log) {
        if (promptLength.isEmpty()) {
            return Optional.empty();
        }
        int length = promptLength.getAsInt();
        try {
            return Optional.of(Latency.measure(model, length, log));
        } catch (UserException e) {
            log.warn("speed was not measured, because the model does not run on a prompt of %d tokens: %s"
                    .formatted(length, e.getMessage()));
            return Optional.empty();
        }
    }
}
