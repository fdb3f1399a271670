// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import io.onnxprune.diag.UsageException;
import java.util.OptionalInt;

/**
 * How a model is trained; the defaults are those of LLM-Pruner (arXiv 2305.11627).
 *
 * @param mode what is trained
 * @param rank of adapters
 * @param alpha the change that adapters make is multiplied by alpha / rank
 * @param dropout share of the inputs of adapters that are zero in a step
 * @param targets which products are trained
 * @param learningRate the highest
 * @param schedule how it falls to zero after the warm-up
 * @param warmup steps in which it rises; a tenth of all, at most 100, by default
 * @param weightDecay of AdamW
 * @param clip largest norm of the gradients; 0 for any
 * @param batch rows of a step
 * @param microBatch rows that are run at a time
 * @param epochs how often the data are gone through, where {@code steps} does not say when to stop
 * @param evaluateEvery steps between two looks at the held-out loss
 * @param patience after how many looks without a new best the training stops; 0 for never
 * @param distillation what the divergence from a teacher counts, from 0 to 1, where there is one; the rest is the cross-entropy
 *     of the data
 * @param temperature what logits are divided by for that
 * @param retries how often training begins again with a quarter of the learning rate where the loss rises or never falls
 * @param seed of the order of rows, the adapters' start and the dropout
 */
public record TrainingOptions(
        Mode mode,
        int rank,
        double alpha,
        double dropout,
        Targets targets,
        double learningRate,
        Schedule schedule,
        OptionalInt warmup,
        double weightDecay,
        double clip,
        int batch,
        int microBatch,
        int epochs,
        OptionalInt steps,
        int evaluateEvery,
        int patience,
        double distillation,
        double temperature,
        int retries,
        long seed) {
    /** What is trained. */
    public enum Mode {
        /** Low-rank adapters, which are merged into the weights. */
        LORA,
        /** All weights of residual blocks. */
        FULL,
        /** The scales of normalisations. */
        NORMS,
        /** What is added to products and in normalisations. */
        BIAS
    }

    /** The learning rate after the warm-up. */
    public enum Schedule {
        CONSTANT,
        LINEAR,
        COSINE
    }

    private static final int MOST_WARMUP = 100;

    /** Checks the ranges. */
    public TrainingOptions {
        require(rank >= 1, "--rank takes 1 or more, not " + rank);
        require(alpha > 0, "--alpha takes a number above 0, not " + alpha);
        require(dropout >= 0 && dropout < 1, "--dropout takes a share of at least 0 and less than 1, not " + dropout);
        require(learningRate > 0 && learningRate < 1, "--lr takes a number above 0 and below 1, not " + learningRate);
        require(warmup.isEmpty() || warmup.getAsInt() >= 0, "--warmup takes 0 or more steps");
        require(
                weightDecay >= 0 && weightDecay < 1,
                "--weight-decay takes at least 0 and less than 1, not " + weightDecay);
        require(clip >= 0, "--clip takes 0 (for none) or more, not " + clip);
        require(batch >= 1, "--batch takes 1 or more rows, not " + batch);
        require(microBatch >= 1, "--micro-batch takes 1 or more rows, not " + microBatch);
        require(epochs >= 1, "--epochs takes 1 or more, not " + epochs);
        require(steps.isEmpty() || steps.getAsInt() >= 1, "--steps takes 1 or more");
        require(evaluateEvery >= 1, "--eval-every takes 1 or more steps, not " + evaluateEvery);
        require(
                distillation >= 0 && distillation <= 1,
                "--distill-weight takes a share from 0 to 1, not " + distillation);
        require(temperature > 0, "--temperature takes a number above 0, not " + temperature);
        require(patience >= 0, "--patience takes 0 (for no early stop) or more, not " + patience);
    }

    private static void require(boolean holds, String problem) {
        if (!holds) {
            throw new UsageException(problem);
        }
    }

    /** The same with batches of at most so many rows. */
    public TrainingOptions withBatchOf(int rows) {
        return with(Math.min(batch, rows), retries);
    }

    /** The same with so many retries. */
    public TrainingOptions withRetries(int changed) {
        return with(batch, changed);
    }

    private TrainingOptions with(int changedBatch, int changedRetries) {
        return new TrainingOptions(
                mode,
                rank,
                alpha,
                dropout,
                targets,
                learningRate,
                schedule,
                warmup,
                weightDecay,
                clip,
                changedBatch,
                microBatch,
                epochs,
                steps,
                evaluateEvery,
                patience,
                distillation,
                temperature,
                changedRetries,
                seed);
    }

    /** How many steps are taken on so many rows. */
    int totalSteps(int rows) {
        return steps.orElse(Math.max(1, epochs * (rows / batch)));
    }

    /** The learning rate of a step, counted from 0. */
    double learningRate(int step, int total) {
        int rising = warmup.orElse(Math.min(MOST_WARMUP, total / 10));
        if (step < rising) {
            return learningRate * (step + 1) / rising;
        }
        double done = (step - rising) / (double) Math.max(1, total - rising);
        return learningRate
                * switch (schedule) {
                    case CONSTANT -> 1;
                    case LINEAR -> 1 - done;
                    case COSINE -> (1 + Math.cos(Math.PI * done)) / 2;
                };
    }
}
