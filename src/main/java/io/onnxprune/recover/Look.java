package io.onnxprune.recover;

/**
 * A look at the losses in the course of training.
 *
 * @param step how many steps were taken
 * @param loss the mean over the steps since the last look; not a number before the first step
 * @param heldOut the loss on held-out rows
 * @param learningRate of the last step
 * @param tokensPerSecond trained on since the last look
 */
public record Look(int step, double loss, double heldOut, double learningRate, double tokensPerSecond) {}
