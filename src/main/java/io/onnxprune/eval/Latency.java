// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.OptionalDouble;

/**
 * The speed of a model at batch size 1.
 *
 * @param prefillTokensPerSecond prompt tokens processed in each second
 * @param decodeTokensPerSecond tokens decoded in each second after the prompt; empty for a model without a cache
 */
public record Latency(double prefillTokensPerSecond, OptionalDouble decodeTokensPerSecond) {
    private static final int WARM_UP = 2;
    private static final int MIN_REPEATS = 3;
    private static final int MAX_REPEATS = 15;
    private static final int DECODED_TOKENS = 32;

    /** For one workload: more repeats, since a target is met to a few per cent. */
    private static final int MANY_REPEATS = 301;

    /** Steps behind one prompt; few, since each lengthens the cache. */
    private static final int STEPS = 4;

    /** Measuring stops after this many seconds once there are {@link #MIN_REPEATS}; large models need fewer repeats. */
    private static final double ENOUGH_SECONDS = 3;

    /**
     * Measures the medians over several repeats, after a warm-up.
     *
     * @param length tokens of the prompt
     * @throws io.onnxprune.diag.UserException when the model cannot process so many tokens
     */
    public static Latency measure(CausalLm model, int length, Log log) {
        long[] prompt = prompt(length, model.vocabulary());
        List<Double> prefill = new ArrayList<>();
        List<Double> decode = new ArrayList<>();
        long begin = System.nanoTime();
        try (Log.Progress progress = log.progress("latency", WARM_UP + MAX_REPEATS)) {
            for (int i = 0; i < WARM_UP; i++) {
                repeat(model, prompt, decodedTokens(model), new ArrayList<>(), new ArrayList<>());
                progress.step(1);
            }
            while (prefill.size() < MIN_REPEATS
                    || (prefill.size() < MAX_REPEATS && secondsSince(begin) < ENOUGH_SECONDS)) {
                repeat(model, prompt, decodedTokens(model), prefill, decode);
                progress.step(1);
            }
        }
        return new Latency(
                length / median(prefill),
                decode.isEmpty() ? OptionalDouble.empty() : OptionalDouble.of(1 / median(decode)));
    }

    /**
     * The time of a workload: the lower quartile over many repeats, after a warm-up. Other work on the machine only adds time.
     *
     * @return seconds
     * @throws UserException when the model cannot do this work
     */
    public static double seconds(CausalLm model, Workload work, Log log) {
        boolean decodes = work.kind() == Workload.Kind.DECODE;
        if (decodes && !model.decodesTokens()) {
            throw new UserException("the model has no cache to decode single tokens with, so " + work
                    + " cannot be timed; time prefill:" + work.tokens());
        }
        long[] prompt = prompt(work.tokens(), model.vocabulary());
        List<Double> prefill = new ArrayList<>();
        List<Double> decode = new ArrayList<>();
        long begin = System.nanoTime();
        for (int i = 0; i < WARM_UP; i++) {
            repeat(model, prompt, decodes ? STEPS : 0, new ArrayList<>(), new ArrayList<>());
        }
        while (prefill.size() < MIN_REPEATS
                || (prefill.size() < MANY_REPEATS && secondsSince(begin) < ENOUGH_SECONDS)) {
            repeat(model, prompt, decodes ? STEPS : 0, prefill, decode);
        }
        double seconds = lowerQuartile(decodes ? decode : prefill);
        log.debug("timed %s: %.3f ms".formatted(work, 1e3 * seconds));
        return seconds;
    }

    /** The number of tokens that are decoded after the prompt; 0 without a cache. */
    static int decodedTokens(CausalLm model) {
        return model.decodesTokens() ? DECODED_TOKENS : 0;
    }

    /** Processes the prompt once and decodes some tokens; appends the seconds of each run to the lists. */
    private static void repeat(CausalLm model, long[] prompt, int steps, List<Double> prefill, List<Double> decode) {
        long start = System.nanoTime();
        CausalLm.Step step = model.prefill(new long[][] {prompt});
        prefill.add(secondsSince(start));
        try {
            for (int i = 0; i < steps; i++) {
                long[][] next = {{prompt[i % prompt.length]}};
                start = System.nanoTime();
                step = model.decode(step, next);
                decode.add(secondsSince(start));
            }
        } finally {
            step.close();
        }
    }

    private static double secondsSince(long start) {
        return (System.nanoTime() - start) * 1e-9;
    }

    /** A prompt of arbitrary tokens, spread over the vocabulary. Their choice does not affect the time. */
    private static long[] prompt(int length, long vocabulary) {
        long[] tokens = new long[length];
        Arrays.setAll(tokens, i -> (i * 7919L + 1) % vocabulary);
        return tokens;
    }

    private static double lowerQuartile(List<Double> values) {
        return values.stream().sorted().skip(values.size() / 4).findFirst().orElseThrow();
    }

    private static double median(List<Double> values) {
        double[] sorted =
                values.stream().mapToDouble(Double::doubleValue).sorted().toArray();
        int middle = sorted.length / 2;
        return sorted.length % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
    }
}
