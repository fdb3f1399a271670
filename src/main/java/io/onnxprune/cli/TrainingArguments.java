// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import java.util.LinkedHashMap;
import java.util.Map;
import picocli.CommandLine.Option;

/** Options about training. A recover pass checks their values. */
final class TrainingArguments {
    @Option(
            names = "--train",
            paramLabel = "lora|full|norms|bias",
            description = "trained parameters: low-rank adapters, all weights of the blocks, scales of norms,"
                    + " or biases (default: lora; full for --recover without a file)")
    private String train;

    @Option(
            names = "--distill-weight",
            paramLabel = "X",
            description = "weight of the KL divergence from the teacher in the loss; the cross-entropy of the"
                    + " data has the rest (default: 1; 0 for --recover FILE)")
    private String distillWeight;

    @Option(
            names = "--temperature",
            paramLabel = "X",
            description = "temperature of the logits in the comparison with the teacher (default: 1)")
    private String temperature;

    @Option(names = "--rank", paramLabel = "N", description = "rank of adapters (default: 8)")
    private String rank;

    @Option(names = "--alpha", paramLabel = "X", description = "adapters are scaled by alpha / rank (default: 16)")
    private String alpha;

    @Option(names = "--dropout", paramLabel = "X", description = "dropout on the inputs of adapters (default: 0.05)")
    private String dropout;

    @Option(
            names = "--targets",
            paramLabel = "WORDS",
            description = "linear layers to train, separated by commas: attention, ffn, all for both, or"
                    + " patterns of names of weights, nodes or layers, such as layers.3 (default: all)")
    private String targets;

    @Option(
            names = "--lr",
            paramLabel = "X",
            description = "highest learning rate (default: 1e-4; 2e-3 for --recover without a file)")
    private String learningRate;

    @Option(
            names = "--warmup",
            paramLabel = "N",
            description = "warm-up steps, in which the learning rate rises (default: a tenth of all, at most" + " 100)")
    private String warmup;

    @Option(names = "--weight-decay", paramLabel = "X", description = "weight decay of AdamW (default: 0)")
    private String weightDecay;

    @Option(
            names = "--clip",
            paramLabel = "X",
            description = "gradients are clipped to this norm, 0 for no clipping (default: 1)")
    private String clip;

    @Option(
            names = "--batch",
            paramLabel = "N",
            description = "rows per step (default: 64; 16 for --recover without a file)")
    private String batch;

    @Option(names = "--micro-batch", paramLabel = "N", description = "rows per forward and backward pass (default: 16)")
    private String microBatch;

    @Option(
            names = "--epochs",
            paramLabel = "N",
            description = "passes over the data (default: 2; 5 for --recover without a file)")
    private String epochs;

    @Option(
            names = "--eval-every",
            paramLabel = "N",
            description = "steps between evaluations of the held-out loss (default: 25; 10 for --recover"
                    + " without a file)")
    private String evaluateEvery;

    @Option(
            names = "--patience",
            paramLabel = "N",
            description = "evaluations without a new best after which training stops, 0 for no limit (default:" + " 0)")
    private String patience;

    /**
     * The given options, by the keys of a recover pass.
     *
     * @param schedule the decay of the learning rate; null if not given
     * @param steps the number of steps; null if not given
     */
    Map<String, String> given(String schedule, Integer steps) {
        Map<String, String> values = new LinkedHashMap<>();
        values.put("schedule", schedule);
        values.put("steps", steps == null ? null : steps.toString());
        values.put("train", train);
        values.put("distill-weight", distillWeight);
        values.put("temperature", temperature);
        values.put("rank", rank);
        values.put("alpha", alpha);
        values.put("dropout", dropout);
        values.put("targets", targets);
        values.put("lr", learningRate);
        values.put("warmup", warmup);
        values.put("weight-decay", weightDecay);
        values.put("clip", clip);
        values.put("batch", batch);
        values.put("micro-batch", microBatch);
        values.put("epochs", epochs);
        values.put("eval-every", evaluateEvery);
        values.put("patience", patience);
        values.values().removeIf(value -> value == null);
        return values;
    }
}
