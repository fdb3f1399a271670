package io.onnxprune.eval;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.runtime.OnnxRuntime;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;
import java.util.OptionalDouble;

/** Evaluates a model file: the one entry of this package for a command. */
public final class Evaluator {
    private Evaluator() {}

    /**
     * Measures perplexity and, if asked, speed.
     *
     * @param model the model.onnx
     * @throws UserException when the data or the model cannot be read, do not fit one another, or the model does not run
     */
    public static Evaluation evaluate(OnnxRuntime runtime, Path model, EvalOptions options, Log log) {
        TokenData data = TokenData.read(
                options.data(), options.tokenizer().or(() -> tokenizerBeside(model)), options.sequenceLength());
        try (CausalLm lm = CausalLm.open(runtime, model)) {
            return evaluate(lm, data, options, log);
        }
    }

    /** The tokenizer.json in the folder of a model, if there is one. */
    public static Optional<Path> tokenizerBeside(Path model) {
        return Optional.of(model.resolveSibling("tokenizer.json")).filter(Files::isRegularFile);
    }

    private static Evaluation evaluate(CausalLm model, TokenData data, EvalOptions options, Log log) {
        data.requireVocabulary(model.vocabulary());
        long start = System.nanoTime();
        Perplexity perplexity = Perplexity.measure(model, data.rows(), log);
        double seconds = (System.nanoTime() - start) * 1e-9;
        Optional<Latency> latency = latency(model, options, log);
        return new Evaluation(
                perplexity.perplexity(),
                perplexity.nll(),
                perplexity.tokens(),
                data.rows().size(),
                model.vocabulary(),
                latency.map(found -> OptionalDouble.of(found.prefillTokensPerSecond()))
                        .orElse(OptionalDouble.empty()),
                latency.map(Latency::decodeTokensPerSecond).orElse(OptionalDouble.empty()),
                seconds);
    }

    /** Speed is an extra: a model too short for the prompt is still evaluated. */
    private static Optional<Latency> latency(CausalLm model, EvalOptions options, Log log) {
        if (options.promptLength().isEmpty()) {
            return Optional.empty();
        }
        int length = options.promptLength().getAsInt();
        try {
            return Optional.of(Latency.measure(model, length, log));
        } catch (UserException e) {
            log.warn("speed was not measured, since the model does not run on a prompt of %d tokens: %s"
                    .formatted(length, e.getMessage()));
            return Optional.empty();
        }
    }
}
