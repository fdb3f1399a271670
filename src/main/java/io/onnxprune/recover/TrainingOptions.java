// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import io.onnxprune.diag.UsageException;
import io.onnxprune.option.Option;
import java.util.List;
import java.util.OptionalInt;

/**
 * The options of recovery training.
 *
 * @param trained which parameters are trained, and how
 * @param optimizer AdamW and its learning rate
 * @param loop how long training goes on
 * @param distillation what is learned from a teacher
 * @param retries number of restarts with a quarter of the learning rate when the loss diverges or never falls
 * @param seed seed of the order of rows, the adapters' initial values and the dropout
 */
public record TrainingOptions(
        Trained trained, Optimizer optimizer, Loop loop, Distillation distillation, int retries, long seed) {
    private static final int MAX_WARMUP = 100;

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

    /**
     * Which parameters are trained, and how.
     *
     * @param train the kind of parameters
     * @param rank rank of adapters
     * @param alpha the output of adapters is multiplied by alpha / rank
     * @param dropout share of the adapters' inputs that are zeroed in a step
     * @param targets the linear layers to train, as {@link Targets#of} reads them
     */
    public record Trained(
            @Option("All weights of the blocks, low-rank adapters that are merged, the scales of norms, or biases.")
            Mode train,

            @Option(value = "For lora.", min = 1) int rank,

            @Option("For lora: the change is multiplied by alpha / rank.")
            double alpha,

            @Option("For lora: share of adapters' inputs that are zero in a step, less than 1.")
            double dropout,

            @Option(
                    "The linear layers that are trained: attention, ffn, all for both, or patterns of names of weights, nodes or"
                            + " layers.")
            List<String> targets) {
        /** All weights. */
        public Trained() {
            this(Mode.FULL, 8, 16, 0, List.of("attention", "ffn"));
        }

        public Trained {
            require(rank >= 1, "--rank takes 1 or more, not " + rank);
            require(alpha > 0, "--alpha takes a number above 0, not " + alpha);
            require(
                    dropout >= 0 && dropout < 1,
                    "--dropout takes a share of at least 0 and less than 1, not " + dropout);
            Targets.of(targets);
        }
    }

    /**
     * AdamW.
     *
     * @param lr peak learning rate
     * @param schedule decay of the learning rate after the warm-up
     * @param warmup number of steps with rising learning rate; by default a tenth of all, at most 100
     * @param weightDecay weight decay
     * @param clip maximal norm of the gradients; 0 for no clipping
     */
    public record Optimizer(
            @Option("Highest learning rate, less than 1.") double lr,
            @Option("How the learning rate falls.") Schedule schedule,

            @Option("Steps in which the learning rate rises; without, a tenth of all, at most 100.")
            OptionalInt warmup,

            @Option("Of AdamW, less than 1.") double weightDecay,

            @Option("Largest norm of the gradients; 0 for any.")
            double clip) {
        /** Full training of small models. */
        public Optimizer() {
            this(2e-3, Schedule.COSINE, OptionalInt.empty(), 0, 1);
        }

        public Optimizer {
            require(lr > 0 && lr < 1, "--lr takes a number above 0 and below 1, not " + lr);
            require(warmup.isEmpty() || warmup.getAsInt() >= 0, "--warmup takes 0 or more steps");
            require(
                    weightDecay >= 0 && weightDecay < 1,
                    "--weight-decay takes at least 0 and less than 1, not " + weightDecay);
            require(clip >= 0, "--clip takes 0 (for none) or more, not " + clip);
        }
    }

    /**
     * How long training goes on.
     *
     * @param batch number of rows in a step
     * @param microBatch number of rows that are run at a time
     * @param epochs number of passes over the data, unless {@code steps} is given
     * @param steps number of steps
     * @param evalEvery number of steps between two evaluations
     * @param patience number of evaluations without improvement after which training stops; 0 for no early stop
     */
    public record Loop(
            @Option(value = "Rows of a step.", min = 1) int batch,

            @Option(value = "Rows that are run at a time.", min = 1)
            int microBatch,

            @Option(value = "How often the rows are gone through.", min = 1)
            int epochs,

            @Option(value = "Number of steps, whatever the epochs.", min = 1)
            OptionalInt steps,

            @Option(value = "Steps between evaluations of the loss.", min = 1)
            int evalEvery,

            @Option("Evaluations without a new best after which training ends; 0 for never.")
            int patience) {
        /** Five epochs. */
        public Loop() {
            this(16, 16, 5, OptionalInt.empty(), 10, 0);
        }

        public Loop {
            require(batch >= 1, "--batch takes 1 or more rows, not " + batch);
            require(microBatch >= 1, "--micro-batch takes 1 or more rows, not " + microBatch);
            require(epochs >= 1, "--epochs takes 1 or more, not " + epochs);
            require(steps.isEmpty() || steps.getAsInt() >= 1, "--steps takes 1 or more");
            require(evalEvery >= 1, "--eval-every takes 1 or more steps, not " + evalEvery);
            require(patience >= 0, "--patience takes 0 (for no early stop) or more, not " + patience);
        }

        private Loop withBatch(int rows) {
            return new Loop(rows, microBatch, epochs, steps, evalEvery, patience);
        }
    }

    /**
     * What is learned from a teacher.
     *
     * @param distillWeight weight of the KL divergence from the teacher, from 0 to 1; the cross-entropy of the data has the
     *     remaining weight
     * @param temperature divisor of the logits in the KL divergence
     */
    public record Distillation(
            @Option(
                    "Weight of the KL divergence from the predictions of the dense model, at most 1; the cross-entropy of the"
                            + " rows has the rest.")
            double distillWeight,

            @Option("Logits are divided by this where they are compared with the dense model's.")
            double temperature) {
        /** The predictions alone. */
        public Distillation() {
            this(1, 1);
        }

        public Distillation {
            require(
                    distillWeight >= 0 && distillWeight <= 1,
                    "--distill-weight takes a share from 0 to 1, not " + distillWeight);
            require(temperature > 0, "--temperature takes a number above 0, not " + temperature);
        }
    }

    private static void require(boolean holds, String problem) {
        if (!holds) {
            throw new UsageException(problem);
        }
    }

    /** A copy of these options with batches of at most {@code rows} rows. */
    public TrainingOptions withBatchOf(int rows) {
        return new TrainingOptions(
                trained, optimizer, loop.withBatch(Math.min(loop.batch, rows)), distillation, retries, seed);
    }

    /** A copy of these options with another number of retries. */
    public TrainingOptions withRetries(int changed) {
        return new TrainingOptions(trained, optimizer, loop, distillation, changed, seed);
    }

    /** Total number of steps on {@code rows} training rows. */
    int totalSteps(int rows) {
        return loop.steps.orElse(Math.max(1, loop.epochs * (rows / loop.batch)));
    }

    /**
     * The learning rate of a step.
     *
     * @param step index of the step, from 0
     * @param total total number of steps
     */
    double learningRate(int step, int total) {
        int rising = optimizer.warmup.orElse(Math.min(MAX_WARMUP, total / 10));
        if (step < rising) {
            return optimizer.lr * (step + 1) / rising;
        }
        double done = (step - rising) / (double) Math.max(1, total - rising);
        return optimizer.lr
                * switch (optimizer.schedule) {
                    case CONSTANT -> 1;
                    case LINEAR -> 1 - done;
                    case COSINE -> (1 + Math.cos(Math.PI * done)) / 2;
                };
    }
}
