// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.GraphBuilder;
import java.util.List;
import java.util.Map;

/**
 * The squared error of a model's outputs from those of a reference model, for each row: Σ (y - r)² / Σ r² over all
 * elements of the row. It compares models without a vocabulary, such as encoders.
 */
public final class SquaredErrorLoss {
    private final String rows;
    private final String gradient;

    private SquaredErrorLoss(String rows, String gradient) {
        this.rows = rows;
        this.gradient = gradient;
    }

    /**
     * Appends the loss and its gradient.
     *
     * @param outputs name of a float32 or float64 value [batch, ...]
     * @param reference name of the outputs of the reference model, of the same type and shape
     * @param into receives the nodes
     */
    public static SquaredErrorLoss append(String outputs, String reference, GraphBuilder into) {
        String error = into.add("Sub", outputs, reference);
        String scale = into.add("Reciprocal", sum(into.add("Mul", reference, reference), true, into));
        String scaled = into.add("Mul", error, into.add("Reshape", scale, columns(outputs, into)));
        String rows = into.add(
                "Cast",
                List.of(sum(into.add("Mul", error, scaled), false, into)),
                Map.of("to", new Attribute.Int(DType.FLOAT.code())));
        String two = into.add("CastLike", into.scalar(2), outputs);
        return new SquaredErrorLoss(rows, into.add("Mul", scaled, two));
    }

    /** The sums over the elements of each row, [batch] or [batch, 1]. */
    static String sum(String value, boolean keep, GraphBuilder into) {
        String flat = into.add("Reshape", value, into.ints(0, -1));
        return into.add("ReduceSum", List.of(flat, into.ints(1)), Map.of("keepdims", new Attribute.Int(keep ? 1 : 0)));
    }

    /** The shape [batch, 1, ...] with as many axes as {@code value}. */
    static String columns(String value, GraphBuilder into) {
        String shape = into.add("Shape", value);
        String ones = into.add("Div", shape, shape);
        String batch = into.add("Slice", shape, into.ints(0), into.ints(1));
        String rest = into.add("Slice", ones, into.ints(1), into.ints(Long.MAX_VALUE));
        return into.add("Concat", List.of(batch, rest), Map.of("axis", new Attribute.Int(0)));
    }

    /** The name of the losses [batch], float32. */
    public String rows() {
        return rows;
    }

    /** The name of the gradient of the sum of {@link #rows} by the outputs, of their type and shape. */
    public String gradient() {
        return gradient;
    }
}
