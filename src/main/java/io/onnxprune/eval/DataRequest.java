// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;

/**
 * A request for the data to calibrate and to evaluate on.
 *
 * @param calibration files of calibration data; empty when there are none or the model generates its own
 * @param self whether the model generates its own calibration text
 * @param evaluation data to measure perplexity on; by default windows that calibration does not use
 * @param tokenizer the tokenizer for text; by default tokenizer.json beside the model
 * @param samples number of calibration windows; {@value #DEFAULT_SAMPLES} by default
 * @param sequenceLength tokens of a window. By default rows of ids are not cut unless they are longer than
 *     {@code usualLength}, and text is cut to {@code usualLength}
 * @param usualLength default length of a window in tokens
 * @param bos the token at the beginning of generated text (BOS); by default that of the model's configuration
 * @param calibrates whether the method needs calibration data; if not, data only serves to measure perplexity
 * @param seed seed of all random choices
 */
public record DataRequest(
        List<WeightedFile> calibration,
        boolean self,
        Optional<Path> evaluation,
        Optional<Path> tokenizer,
        OptionalInt samples,
        OptionalInt sequenceLength,
        int usualLength,
        OptionalLong bos,
        boolean calibrates,
        long seed) {
    /** Default number of calibration windows. */
    public static final int DEFAULT_SAMPLES = 128;

    /** Length of a window in tokens when neither the command line, the method nor rows of ids determine it. */
    public static final int USUAL_LENGTH = TokenData.TEXT_WINDOW;

    /**
     * A file of calibration data.
     *
     * @param weight the share of the samples that comes from it, relative to the weights of the other files
     */
    public record WeightedFile(Path file, double weight) {}

    public DataRequest {
        calibration = List.copyOf(calibration);
    }

    /** A copy of this request with defaults for the number of windows and their length in tokens. */
    public DataRequest withDefaults(int windows, int tokens) {
        return new DataRequest(
                calibration,
                self,
                evaluation,
                tokenizer,
                OptionalInt.of(samples.orElse(windows)),
                sequenceLength,
                tokens,
                bos,
                calibrates,
                seed);
    }

    /** A copy of this request with windows of exactly this length in tokens. */
    DataRequest ofLength(int tokens) {
        return new DataRequest(
                calibration,
                self,
                evaluation,
                tokenizer,
                samples,
                OptionalInt.of(tokens),
                usualLength,
                bos,
                calibrates,
                seed);
    }

    /** Whether no data is requested. */
    public boolean isEmpty() {
        return calibration.isEmpty() && !self && evaluation.isEmpty();
    }

    /** Number of calibration windows. */
    int sampleCount() {
        return samples.orElse(DEFAULT_SAMPLES);
    }
}
