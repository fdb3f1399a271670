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
 * Linear layers with weights of 8 bits whose activations are rounded to 8 bits at run time. Rounding has no gradient, so
 * activations stay as they are: a scale of 1 and a zero of 0 for them, and the weights dequantised up to their scale.
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
        table.onnx(DynamicQuantization::product, "MatMulInteger");
    }

    private static boolean quantize(RewriteContext s) {
        if (!feedsProductsOnly(s.op())) {
            return false;
        }
        s.result(0, s.in(0));
        s.result(1, s.scalar(1));
        s.result(2, s.scalar(0));
        return true;
    }

    private static boolean product(RewriteContext s) {
        Op quantize = s.operand(0).producer();
        if (quantize == null || !isQuantize(quantize) || !feedsProductsOnly(quantize)) {
            return false;
        }
        String weight = s.cast(s.in(1), DType.FLOAT);
        if (s.has(3)) {
            weight = s.add("Sub", weight, s.cast(s.in(3), DType.FLOAT));
        }
        s.result(0, s.add("MatMul", s.in(0), weight));
        return true;
    }

    private static boolean isQuantize(Op op) {
        return op.node().domain().isEmpty() && op.node().is("DynamicQuantizeLinear");
    }

    /** Whether the integers go into products alone, with their own zero, and those are made floats again at once. */
    private static boolean feedsProductsOnly(Op quantize) {
        Set<Op> products = new HashSet<>();
        for (Use use : quantize.output(0).uses()) {
            if (!use.op().node().is("MatMulInteger") || use.input() != 0) {
                return false;
            }
            products.add(use.op());
        }
        Value zero = quantize.output(2);
        List<Use> zeroUses = zero == null ? List.of() : zero.uses();
        return zeroUses.stream().allMatch(use -> use.input() == 2 && products.contains(use.op()))
                && products.stream()
                        .allMatch(product -> product.input(2) == zero
                                && product.output(0).uses().stream()
                                        .allMatch(use -> use.op().node().is("Cast")));
    }
}
