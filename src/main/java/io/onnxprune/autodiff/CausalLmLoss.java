// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.GraphBuilder;
import java.util.List;
import java.util.Map;

/**
 * The training loss of a causal language model, each row by itself: the mean over positions t = 0 .. T-2 of the
 * cross-entropy -log softmax(logits[t])[token[t + 1]], in nats.
 *
 * <p>Log-sum-exp is m - log p with m the largest logit and p its probability, which is at least 1/V: so nothing
 * overflows or underflows, and beside the logits only their softmax is held at full size.
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
     * @param tokens name of an int64 or int32 value [batch, length]; at least two tokens a row
     * @param into takes the nodes
     */
    public static CausalLmLoss append(String logits, String tokens, GraphBuilder into) {
        return append(logits, nextTokens(tokens, into), weights(tokens, into), into);
    }

    /**
     * The same with other weights: each row's loss is the sum over positions of the cross-entropy of the next token times what
     * the position counts.
     *
     * @param weights name of a float32 value [batch, length]; the last position's should be 0
     */
    public static CausalLmLoss weighted(String logits, String tokens, String weights, GraphBuilder into) {
        return append(logits, nextTokens(tokens, into), into.add("Unsqueeze", weights, into.ints(-1)), into);
    }

    private static CausalLmLoss append(String logits, String next, String counts, GraphBuilder into) {
        // For float64 logits everything is float64 but the losses; the cast is of a few numbers.
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

    /** The token after each one [batch, length, 1]; for the last one, which has weight 0, the first. */
    private static String nextTokens(String tokens, GraphBuilder into) {
        String one = into.ints(1);
        String rest = into.add("Slice", tokens, one, into.ints(Long.MAX_VALUE), one);
        String first = into.add("Slice", tokens, into.ints(0), one, one);
        String turned = into.add("Concat", List.of(rest, first), axis(1));
        return into.add("Unsqueeze", turned, into.ints(-1));
    }

    /** What each position counts [1, length, 1]: 1/(T-1), and 0 for the last one, after which no token is known. */
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
     * The name of the gradient of the sum of {@link #rows} [batch, length, vocabulary], of the type of the logits; 0 at
     * the last position.
     */
    public String gradient() {
        return gradient;
    }
}
