package io.onnxprune.recover;

import java.util.Locale;

/**
 * A look at the losses in the course of training.
 *
 * @param step how many steps were taken
 * @param loss the mean over the steps since the last look; not a number before the first step
 * @param heldOut the loss on held-out rows; without any, {@code loss}
 * @param learningRate of the last step
 * @param tokensPerSecond trained on since the last look
 */
public record Look(int step, double loss, double heldOut, double learningRate, double tokensPerSecond) {
    Look with(double found) {
        return new Look(step, loss, found, learningRate, tokensPerSecond);
    }

    String describe(int total, boolean heldOutRows) {
        String held = heldOutRows ? String.format(Locale.ROOT, ", held-out %.4f", heldOut) : "";
        return String.format(
                Locale.ROOT,
                "step %d of %d: loss %.4f%s, learning rate %.2e, %.0f tokens/s",
                step,
                total,
                loss,
                held,
                learningRate,
                tokensPerSecond);
    }
}
