// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.GraphBuilder;
import java.util.List;
import java.util.Map;

/**
 * A loss whose squared gradients are the true Fisher matrix of a model without a vocabulary. Its outputs are taken as
 * the mean of a normal distribution of unit variance; the gradient of the log-likelihood of a drawn output is normal
 * noise (Martens, arXiv 1412.1193, section 8).
 */
public final class DrawnOutputs {
    private static final float SEED = 1;

    private final String rows;
    private final String gradient;

    private DrawnOutputs(String rows, String gradient) {
        this.rows = rows;
        this.gradient = gradient;
    }

    /**
     * Appends the drawing. Every run of a session draws anew, and every session starts with the same random sequence.
     *
     * @param outputs name of a float32 or float64 value [batch, ...]
     * @param into receives the nodes
     */
    public static DrawnOutputs append(String outputs, GraphBuilder into) {
        String noise = into.add("RandomNormalLike", List.of(outputs), Map.of("seed", new Attribute.Real(SEED)));
        String positions =
                into.add("Shape", List.of(outputs), Map.of("start", new Attribute.Int(1), "end", new Attribute.Int(2)));
        String share = into.add("Reciprocal", into.add("CastLike", positions, outputs));
        String gradient = into.add("Mul", noise, share);
        String rows = into.add(
                "Cast",
                List.of(SquaredErrorLoss.sum(into.add("Mul", gradient, outputs), false, into)),
                Map.of("to", new Attribute.Int(DType.FLOAT.code())));
        return new DrawnOutputs(rows, gradient);
    }

    /** The name of the losses [batch], float32: the inner product of the noise and the outputs. */
    public String rows() {
        return rows;
    }

    /** The name of the gradient of the sum of {@link #rows} by the outputs, of their type and shape. */
    public String gradient() {
        return gradient;
    }
}
