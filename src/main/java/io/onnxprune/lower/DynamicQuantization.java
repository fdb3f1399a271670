// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.ir.DType;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Use;

/**
 * Decompositions of linear layers with 8-bit weights whose activations are quantised to 8 bits at run time. The
 * rounding has no gradient, so activations are kept, with scale 1 and zero point 0, and the weights are dequantised
 * except for their scale.
 *
 * <pre>
 *     q, s, z = DynamicQuantizeLinear(x)              s = 1
 *     y = MatMulInteger(q, W, z, w)           ─▶      y = MatMul(x, W − w)
 *     Cast(y) · (s · scale)                           Cast(y) · (s · scale)
 *
 *     MatMulIntegerToFloat(q, W, s, scale, z, w, b)   MatMul(x, (W − w) · scale) + b
 *     DynamicQuantizeMatMul(x, W, scale, w, b)        MatMul(x, (W − w) · scale) + b
 * </pre>
 */
final class DynamicQuantization {
    private DynamicQuantization() {}

    static void register(Decompositions.Table table) {
        table.onnx(DynamicQuantization::quantize, "DynamicQuantizeLinear");
        table.onnx(DynamicQuantization::linearLayer, "MatMulInteger");
        table.contrib(DynamicQuantization::scaledLayer, "MatMulIntegerToFloat");
        table.contrib(c -> scaled(c, 2, 3, 4), "DynamicQuantizeMatMul");
    }

    private static boolean quantize(RewriteContext c) {
        if (!feedsLinearLayersOnly(c.op())) {
            return false;
        }
        c.result(0, c.in(0));
        c.result(1, c.scalar(1));
        c.result(2, c.scalar(0));
        return true;
    }

    private static boolean linearLayer(RewriteContext c) {
        if (!readsQuantised(c)) {
            return false;
        }
        c.result(0, c.add("MatMul", c.in(0), centred(c, 3)));
        return true;
    }

    private static boolean scaledLayer(RewriteContext c) {
        return readsQuantised(c) && scaled(c, 3, 5, 6);
    }

    /** x · (W − zero point) · scale + bias. */
    private static boolean scaled(RewriteContext c, int scale, int zero, int bias) {
        String weight = c.add("Mul", centred(c, zero), c.cast(c.in(scale), DType.FLOAT));
        c.result(0, c.plus(c.add("MatMul", c.in(0), weight), c.in(bias)));
        return true;
    }

    private static String centred(RewriteContext c, int zero) {
        String weight = c.cast(c.in(1), DType.FLOAT);
        return c.has(zero) ? c.add("Sub", weight, c.cast(c.in(zero), DType.FLOAT)) : weight;
    }

    private static boolean readsQuantised(RewriteContext c) {
        Op quantize = c.operand(0).producer();
        return quantize != null && isQuantize(quantize) && feedsLinearLayersOnly(quantize);
    }

    private static boolean isQuantize(Op op) {
        return op.node().domain().isEmpty() && op.node().is("DynamicQuantizeLinear");
    }

    /**
     * Whether the quantised activations are consumed only by integer products with the same zero point, whose results
     * are cast to floating point or scaled by the same scale.
     */
    private static boolean feedsLinearLayersOnly(Op quantize) {
        return quantize.output(0).uses().stream().allMatch(use -> isLinearLayer(use, quantize))
                && (quantize.output(2) == null
                        || quantize.output(2).uses().stream().allMatch(use -> readsNumbers(use, quantize)));
    }

    private static boolean isLinearLayer(Use use, Op quantize) {
        Op op = use.op();
        if (use.input() != 0 || !isProduct(op)) {
            return false;
        }
        return op.node().is("MatMulInteger")
                ? op.input(2) == quantize.output(2)
                        && op.output(0).uses().stream()
                                .allMatch(next -> next.op().node().is("Cast"))
                : op.input(2) == quantize.output(1) && op.input(4) == quantize.output(2);
    }

    private static boolean readsNumbers(Use use, Op quantize) {
        int zero = use.op().node().is("MatMulInteger") ? 2 : 4;
        return isProduct(use.op()) && use.input() == zero && use.op().input(0) == quantize.output(0);
    }

    private static boolean isProduct(Op op) {
        return op.node().is("MatMulInteger") || op.node().is("MatMulIntegerToFloat");
    }
}
