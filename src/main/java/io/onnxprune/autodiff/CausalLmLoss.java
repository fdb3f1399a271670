// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.GraphBuilder;
import java.util.List;
import java.util.Map;

/**
 * The cross-entropy loss of a causal language model for each row: the mean over positions t = 0 .. T-2 of -log
 * softmax(logits[t])[token[t + 1]], in nats.
 *
 * <p>Log-sum-exp is computed as m - log p, with m the largest logit and p its probability. Since p is at least 1/V,
 * nothing overflows or underflows, and only the softmax of the logits is stored at full size.
 */
public final class CausalLmLoss {
    private final String rows;
    private final String gradient;

    private CausalLmLoss(String rows, String gradient) {
        this.rows = rows;
        this.gradient = gradient;
    }

    /**
     * Appends the loss and its gradient.
     *
     * @param logits name of a float32 or float64 value [batch, length, vocabulary]
     * @param tokens name of an int64 or int32 value [batch, length], with length at least 2
     * @param into receives the nodes
     */
    public static CausalLmLoss append(String logits, String tokens, GraphBuilder into) {
        return append(logits, nextTokens(tokens, into), weights(tokens, into), into);
    }

    /**
     * Appends a weighted loss and its gradient: for each row the sum over positions of the position's weight times the
     * cross-entropy of the next token.
     *
     * @param logits name of a float32 or float64 value [batch, length, vocabulary]
     * @param tokens name of an int64 or int32 value [batch, length], with length at least 2
     * @param weights name of a float32 value [batch, length]; the last position's should be 0
     * @param into receives the nodes
     */
    public static CausalLmLoss weighted(String logits, String tokens, String weights, GraphBuilder into) {
        return append(logits, nextTokens(tokens, into), into.add("Unsqueeze", weights, into.ints(-1)), into);
    }

    private static CausalLmLoss append(String logits, String next, String counts, GraphBuilder into) {
        // With float64 logits everything except the losses is float64.
        String weights = into.add("CastLike", counts, logits);
        String last = into.ints(-1);
        String probabilities = into.add("Softmax", List.of(logits), axis(-1));
        String largest = into.add("ReduceMax", logits, last);
        String logOfLargest = into.add("Log", into.add("ReduceMax", probabilities, last));
        String chosen = into.add("GatherElements", List.of(logits, next), axis(2));
        String losses = into.add("Sub", into.add("Sub", largest, logOfLargest), chosen);
        String sums = into.add(
                "ReduceSum",
                List.of(into.add("Mul", losses, weights), into.ints(1, 2)),
                Map.of("keepdims", new Attribute.Int(0)));
        String rows = into.add("Cast", List.of(sums), Map.of("to", new Attribute.Int(DType.FLOAT.code())));
        String scaled = into.add("Mul", probabilities, weights);
        String removed = into.add("Expand", into.add("Neg", weights), into.add("Shape", next));
        String gradient = into.add(
                "ScatterElements",
                List.of(scaled, next, removed),
                Map.of("axis", new Attribute.Int(2), "reduction", new Attribute.Text("add")));
        return new CausalLmLoss(rows, gradient);
    }

    private static Map<String, Attribute> axis(long axis) {
        return Map.of("axis", new Attribute.Int(axis));
    }

    /** The next token at each position [batch, length, 1]; the first token at the last position, which has weight 0. */
    private static String nextTokens(String tokens, GraphBuilder into) {
        String one = into.ints(1);
        String following = into.add("Slice", tokens, one, into.ints(Long.MAX_VALUE), one);
        String first = into.add("Slice", tokens, into.ints(0), one, one);
        String shifted = into.add("Concat", List.of(following, first), axis(1));
        return into.add("Unsqueeze", shifted, into.ints(-1));
    }

    /**
     * The weight of each position [1, length, 1]: 1/(T-1), and 0 for the last position, whose next token is unknown.
     */
    private static String weights(String tokens, GraphBuilder into) {
        String length = into.add(
                "Squeeze",
                into.add("Shape", List.of(tokens), Map.of("start", new Attribute.Int(1), "end", new Attribute.Int(2))));
        String count = into.add("Sub", length, into.index(1));
        String positions = into.add("Range", into.index(0), length, into.index(1));
        String real = into.add("Cast", List.of(count), Map.of("to", new Attribute.Int(DType.FLOAT.code())));
        String share = into.add("Reciprocal", real);
        String weights = into.add("Where", into.add("Less", positions, count), share, into.scalar(0));
        return into.add("Unsqueeze", weights, into.ints(0, 2));
    }

    /** The name of the losses [batch], float32. */
    public String rows() {
        return rows;
    }

    /**
     * The name of the gradient of the sum of {@link #rows} by the logits [batch, length, vocabulary], of their type; 0
     * at the last position.
     */
    public String gradient() {
        return gradient;
    }
}
