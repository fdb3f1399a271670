// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.GraphBuilder;
import java.util.List;
import java.util.Map;

/**
 * How far the predictions of a causal language model are from those of another one, each row by itself: the mean over all
 * positions of the Kullback-Leibler divergence Σ_v p_v (log p_v - log q_v), in nats, where p are the probabilities that
 * the reference gives to the next token and q those of the model.
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
     * @param reference name of the logits of the reference, of the same type and shape
     * @param into takes the nodes
     */
    public static DivergenceLoss append(String logits, String reference, GraphBuilder into) {
        String length =
                into.add("Shape", List.of(logits), Map.of("start", new Attribute.Int(1), "end", new Attribute.Int(2)));
        String share = into.add("Reciprocal", into.add("CastLike", length, logits));
        return append(logits, reference, share, share, into);
    }

    /**
     * The same with other weights and at a temperature T: each row's loss is the sum over positions of T² times the divergence of the
     * probabilities of logits / T (Hinton et al., arXiv 1503.02531, section 2), times what the position counts.
     *
     * @param weights name of a float32 value [batch, length]
     */
    public static DivergenceLoss weighted(
            String logits, String reference, String weights, double temperature, GraphBuilder into) {
        String counts = into.add("CastLike", weights, logits);
        if (temperature == 1) {
            return append(logits, reference, counts, into.add("Unsqueeze", counts, into.ints(-1)), into);
        }
        String cooler = into.add("CastLike", into.scalar((float) (1 / temperature)), logits);
        String squared =
                into.add("Mul", counts, into.add("CastLike", into.scalar((float) (temperature * temperature)), logits));
        String slope = into.add("Mul", counts, into.add("CastLike", into.scalar((float) temperature), logits));
        return append(
                into.add("Mul", logits, cooler),
                into.add("Mul", reference, cooler),
                squared,
                into.add("Unsqueeze", slope, into.ints(-1)),
                into);
    }

    /**
     * Appends the divergence.
     *
     * @param counts what each position counts in the loss, to be multiplied with [batch, length]
     * @param slopes the same in the gradient, to be multiplied with [batch, length, vocabulary]
     */
    private static DivergenceLoss append(
            String logits, String reference, String counts, String slopes, GraphBuilder into) {
        Map<String, Attribute> last = Map.of("axis", new Attribute.Int(-1));
        Map<String, Attribute> dropped = Map.of("keepdims", new Attribute.Int(0));
        String log = into.add("LogSoftmax", List.of(logits), last);
        String theirLog = into.add("LogSoftmax", List.of(reference), last);
        String theirs = into.add("Exp", theirLog);
        String none = into.add("CastLike", into.scalar(0), logits);
        // A token that the reference rules out adds nothing, whatever the model thinks of it.
        String terms = into.add(
                "Where",
                into.add("Greater", theirs, none),
                into.add("Mul", theirs, into.add("Sub", theirLog, log)),
                none);
        String positions = into.add("ReduceSum", List.of(terms, into.ints(2)), dropped);
        String sums = into.add("ReduceSum", List.of(into.add("Mul", positions, counts), into.ints(1)), dropped);
        String rows = into.add("Cast", List.of(sums), Map.of("to", new Attribute.Int(DType.FLOAT.code())));
        String gradient = into.add("Mul", into.add("Sub", into.add("Exp", log), theirs), slopes);
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
