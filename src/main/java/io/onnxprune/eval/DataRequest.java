// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;

/**
 * Which data a run is to calibrate and to be evaluated on.
 *
 * @param calibration files of calibration data; empty for none, or where the model writes its own
 * @param self the model writes its calibration text itself
 * @param evaluation data to measure perplexity on; by default windows that calibration leaves over
 * @param tokenizer the tokenizer for text; by default tokenizer.json beside the model
 * @param samples how many windows to calibrate on; {@value #DEFAULT_SAMPLES} by default
 * @param sequenceLength tokens of a window; by default rows of ids stay as they are, unless they are longer than
 *     {@code usualLength}, which is what text gets
 * @param usualLength tokens of a window where nothing else says how long it is
 * @param bos the token that text begins with, for text that the model writes; by default that of its configuration
 * @param calibrates whether the method needs calibration data; otherwise data only serves to measure
 * @param seed of every random choice
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
    /** Windows to calibrate on unless asked otherwise. */
    public static final int DEFAULT_SAMPLES = 128;

    /** Tokens of a window where neither the command line, nor the method, nor rows of ids say how long it is. */
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

    /** This with so many windows of so many tokens where nothing was said about them. */
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

    /** Whether nothing is to be calibrated or measured. */
    public boolean isEmpty() {
        return calibration.isEmpty() && !self && evaluation.isEmpty();
    }

    /** How many windows to calibrate on. */
    int sampleCount() {
        return samples.orElse(DEFAULT_SAMPLES);
    }
}
