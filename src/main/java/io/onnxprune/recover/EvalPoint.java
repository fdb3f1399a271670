// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import java.util.Locale;

/**
 * An evaluation during training.
 *
 * @param step number of steps taken
 * @param loss mean training loss since the last evaluation; NaN before the first step
 * @param heldOut mean next-token cross-entropy of held-out rows; without held-out rows, the training objective on some
 *     training rows
 * @param learningRate learning rate of the last step
 * @param tokensPerSecond trained tokens per second since the last evaluation
 */
public record EvalPoint(int step, double loss, double heldOut, double learningRate, double tokensPerSecond) {
    /** A copy with another held-out loss. */
    EvalPoint with(double found) {
        return new EvalPoint(step, loss, found, learningRate, tokensPerSecond);
    }

    /**
     * A line for the log.
     *
     * @param total number of all steps
     * @param kind kind of the evaluated rows
     */
    String describe(int total, String kind) {
        return String.format(
                Locale.ROOT,
                "step %d of %d: loss %.4f, %s %.4f, learning rate %.2e, %.0f tokens/s",
                step,
                total,
                loss,
                kind,
                heldOut,
                learningRate,
                tokensPerSecond);
    }
}
