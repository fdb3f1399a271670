// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import java.util.Locale;

/**
 * A look at the losses in the course of training.
 *
 * @param step how many steps were taken
 * @param loss the mean over the steps since the last look; not a number before the first step
 * @param heldOut the mean next-token cross-entropy of held-out rows; without any, what is trained for on some of the rows
 *     themselves
 * @param learningRate of the last step
 * @param tokensPerSecond trained on since the last look
 */
public record EvalPoint(int step, double loss, double heldOut, double learningRate, double tokensPerSecond) {
    EvalPoint with(double found) {
        return new EvalPoint(step, loss, found, learningRate, tokensPerSecond);
    }

    /**
     * A line about it.
     *
     * @param kind of the rows that are looked at
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
