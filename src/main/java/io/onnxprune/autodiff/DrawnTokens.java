// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.GraphBuilder;
import java.util.List;
import java.util.Map;

/** Tokens that are sampled from a causal language model's predictions, one at each position of given rows. */
public final class DrawnTokens {
    private static final float SEED = 1;
    /** The largest uniform random number; the double logarithm of 1 would be infinite. */
    private static final float MAX_UNIFORM = 1 - 0x1p-20f;

    private DrawnTokens() {}

    /**
     * Appends the sampling. The argmax of logits + Gumbel noise follows their softmax. Every run of a session samples
     * new tokens, and every session starts with the same random sequence.
     *
     * @param logits name of a float32 or float64 value [batch, length, vocabulary]
     * @param tokens name of an int64 or int32 value [batch, length]
     * @param into receives the nodes
     * @return name of an int64 value [batch, length]: the first token of each row, followed by the tokens sampled at
     *     all positions except the last
     */
    public static String append(String logits, String tokens, GraphBuilder into) {
        String uniform = into.add(
                "RandomUniformLike",
                List.of(logits),
                Map.of("seed", new Attribute.Real(SEED), "high", new Attribute.Real(MAX_UNIFORM)));
        String noise = into.add("Neg", into.add("Log", into.add("Neg", into.add("Log", uniform))));
        String drawn = into.add(
                "ArgMax",
                List.of(into.add("Add", logits, noise)),
                Map.of("axis", new Attribute.Int(-1), "keepdims", new Attribute.Int(0)));
        String one = into.ints(1);
        String first = into.add("Slice", tokens, into.ints(0), one, one);
        String sampled = into.add("Slice", drawn, into.ints(0), into.ints(-1), one);
        String start = into.add("Cast", List.of(first), Map.of("to", new Attribute.Int(DType.INT64.code())));
        return into.add("Concat", List.of(start, sampled), Map.of("axis", new Attribute.Int(1)));
    }
}
