// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import io.onnxprune.diag.UsageException;
import java.util.OptionalInt;

/**
 * The options of recovery training; the defaults are those of LLM-Pruner (arXiv 2305.11627).
 *
 * @param mode which parameters are trained
 * @param rank rank of adapters
 * @param alpha the output of adapters is multiplied by alpha / rank
 * @param dropout share of the adapters' inputs that are zeroed in a step
 * @param targets the linear layers to train
 * @param learningRate peak learning rate
 * @param schedule decay of the learning rate after the warm-up
 * @param warmup number of steps with rising learning rate; by default a tenth of all, at most 100
 * @param weightDecay weight decay of AdamW
 * @param clip maximal norm of the gradients; 0 for no clipping
 * @param batch number of rows in a step
 * @param microBatch number of rows that are run at a time
 * @param epochs number of passes over the data, unless {@code steps} is given
 * @param steps number of steps
 * @param evaluateEvery number of steps between two evaluations
 * @param patience number of evaluations without improvement after which training stops; 0 for no early stop
 * @param distillation weight of the KL divergence from a teacher, from 0 to 1; the cross-entropy of the data has the
 *     remaining weight
 * @param temperature divisor of the logits in the KL divergence
 * @param retries number of restarts with a quarter of the learning rate when the loss diverges or never falls
 * @param seed seed of the order of rows, the adapters' initial values and the dropout
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
    /** Which parameters are trained. */
    public enum Mode {
        /** Low-rank adapters, which can be merged into the weights. */
        LORA,
        /** All weights of the targeted linear layers, and all scales and biases. */
        FULL,
        /** The scales of normalisations. */
        NORMS,
        /** The biases of linear layers and normalisations. */
        BIAS
    }

    /** The decay of the learning rate after the warm-up. */
    public enum Schedule {
        CONSTANT,
        LINEAR,
        COSINE
    }

    private static final int MAX_WARMUP = 100;

    /**
     * Checks the ranges of all options.
     *
     * @throws UsageException when one is out of range
     */
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

    /** A copy of these options with batches of at most {@code rows} rows. */
    public TrainingOptions withBatchOf(int rows) {
        return with(Math.min(batch, rows), retries);
    }

    /** A copy of these options with another number of retries. */
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

    /** Total number of steps on {@code rows} training rows. */
    int totalSteps(int rows) {
        return steps.orElse(Math.max(1, epochs * (rows / batch)));
    }

    /**
     * The learning rate of a step.
     *
     * @param step index of the step, from 0
     * @param total total number of steps
     */
    double learningRate(int step, int total) {
        int rising = warmup.orElse(Math.min(MAX_WARMUP, total / 10));
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
