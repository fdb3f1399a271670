// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.GraphBuilder;
import java.util.List;
import java.util.Map;

/**
 * The KL divergence of a causal language model's predictions from those of a reference model, for each row: the mean
 * over all positions of KL(p ‖ q) = Σ_v p_v (log p_v - log q_v), in nats, with p the next-token probabilities of the
 * reference and q those of the model.
 */
public final class DivergenceLoss {
    private final String rows;
    private final String gradient;

    private DivergenceLoss(String rows, String gradient) {
        this.rows = rows;
        this.gradient = gradient;
    }

    /**
     * Appends the loss and its gradient.
     *
     * @param logits name of a float32 or float64 value [batch, length, vocabulary]
     * @param reference name of the logits of the reference model, of the same type and shape
     * @param into receives the nodes
     */
    public static DivergenceLoss append(String logits, String reference, GraphBuilder into) {
        String length =
                into.add("Shape", List.of(logits), Map.of("start", new Attribute.Int(1), "end", new Attribute.Int(2)));
        String share = into.add("Reciprocal", into.add("CastLike", length, logits));
        return append(logits, reference, share, share, into);
    }

    /**
     * Appends a weighted loss at temperature T and its gradient: for each row the sum over positions of the position's
     * weight times T² times the KL divergence of the probabilities of logits / T (Hinton et al., arXiv 1503.02531,
     * section 2).
     *
     * @param logits name of a float32 or float64 value [batch, length, vocabulary]
     * @param reference name of the logits of the reference model, of the same type and shape
     * @param weights name of a float32 value [batch, length]
     * @param temperature T, positive
     * @param into receives the nodes
     */
    public static DivergenceLoss weighted(
            String logits, String reference, String weights, double temperature, GraphBuilder into) {
        String counts = into.add("CastLike", weights, logits);
        if (temperature == 1) {
            return append(logits, reference, counts, into.add("Unsqueeze", counts, into.ints(-1)), into);
        }
        String inverseTemperature = into.add("CastLike", into.scalar((float) (1 / temperature)), logits);
        String squared =
                into.add("Mul", counts, into.add("CastLike", into.scalar((float) (temperature * temperature)), logits));
        String slope = into.add("Mul", counts, into.add("CastLike", into.scalar((float) temperature), logits));
        return append(
                into.add("Mul", logits, inverseTemperature),
                into.add("Mul", reference, inverseTemperature),
                squared,
                into.add("Unsqueeze", slope, into.ints(-1)),
                into);
    }

    /**
     * Appends the divergence and its gradient.
     *
     * @param counts weight of each position in the loss, broadcastable to [batch, length]
     * @param slopes weight of each position in the gradient, broadcastable to [batch, length, vocabulary]
     */
    private static DivergenceLoss append(
            String logits, String reference, String counts, String slopes, GraphBuilder into) {
        Map<String, Attribute> last = Map.of("axis", new Attribute.Int(-1));
        Map<String, Attribute> dropped = Map.of("keepdims", new Attribute.Int(0));
        String log = into.add("LogSoftmax", List.of(logits), last);
        String referenceLog = into.add("LogSoftmax", List.of(reference), last);
        String referenceProbabilities = into.add("Exp", referenceLog);
        String zero = into.add("CastLike", into.scalar(0), logits);
        // A token of reference probability zero adds nothing, whatever the model predicts.
        String terms = into.add(
                "Where",
                into.add("Greater", referenceProbabilities, zero),
                into.add("Mul", referenceProbabilities, into.add("Sub", referenceLog, log)),
                zero);
        String positions = into.add("ReduceSum", List.of(terms, into.ints(2)), dropped);
        String sums = into.add("ReduceSum", List.of(into.add("Mul", positions, counts), into.ints(1)), dropped);
        String rows = into.add("Cast", List.of(sums), Map.of("to", new Attribute.Int(DType.FLOAT.code())));
        String gradient = into.add("Mul", into.add("Sub", into.add("Exp", log), referenceProbabilities), slopes);
        return new DivergenceLoss(rows, gradient);
    }

    /** The name of the losses [batch], float32. */
    public String rows() {
        return rows;
    }

    /** The name of the gradient of the sum of {@link #rows} by the logits, of their type and shape. */
    public String gradient() {
        return gradient;
    }
}
