// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.ir.DType;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Program.Value;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/**
 * Decompositions of linear layers with 8-bit weights whose activations are quantised to 8 bits at run time. The
 * rounding has no gradient, so activations are kept, with scale 1 and zero point 0, and the weights are dequantised
 * except for their scale.
 *
 * <pre>
 *     q, s, z = DynamicQuantizeLinear(x)              s = 1
 *     y = MatMulInteger(q, W, z, w)           ─▶      y = MatMul(x, W − w)
 *     Cast(y) · (s · scale)                           Cast(y) · (s · scale)
 * </pre>
 */
final class DynamicQuantization {
    private DynamicQuantization() {}

    static void register(Decompositions.Table table) {
        table.onnx(DynamicQuantization::quantize, "DynamicQuantizeLinear");
        table.onnx(DynamicQuantization::linearLayer, "MatMulInteger");
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
        Op quantize = c.operand(0).producer();
        if (quantize == null || !isQuantize(quantize) || !feedsLinearLayersOnly(quantize)) {
            return false;
        }
        String weight = c.cast(c.in(1), DType.FLOAT);
        if (c.has(3)) {
            weight = c.add("Sub", weight, c.cast(c.in(3), DType.FLOAT));
        }
        c.result(0, c.add("MatMul", c.in(0), weight));
        return true;
    }

    private static boolean isQuantize(Op op) {
        return op.node().domain().isEmpty() && op.node().is("DynamicQuantizeLinear");
    }

    /**
     * Whether the quantised activations are consumed only by MatMulInteger nodes with the same zero point, whose
     * outputs are cast to floating point.
     */
    private static boolean feedsLinearLayersOnly(Op quantize) {
        Set<Op> linearLayers = new HashSet<>();
        for (Use use : quantize.output(0).uses()) {
            if (!use.op().node().is("MatMulInteger") || use.input() != 0) {
                return false;
            }
            linearLayers.add(use.op());
        }
        Value zero = quantize.output(2);
        List<Use> zeroUses = zero == null ? List.of() : zero.uses();
        return zeroUses.stream().allMatch(use -> use.input() == 2 && linearLayers.contains(use.op()))
                && linearLayers.stream()
                        .allMatch(linearLayer -> linearLayer.input(2) == zero
                                && linearLayer.output(0).uses().stream()
                                        .allMatch(use -> use.op().node().is("Cast")));
    }
}
