// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.ir.Attribute;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Decompositions of matrix products that are fused with transpositions, scaling or an activation. */
final class ProductDecompositions {
    private ProductDecompositions() {}

    static void register(Decompositions.Table table) {
        table.contrib(ProductDecompositions::fusedMatMul, "FusedMatMul", "TransposeMatMul");
        table.contrib(ProductDecompositions::fusedGemm, "FusedGemm");
    }

    /**
     * com.microsoft.FusedMatMul: alpha · A'B'. A' is A with its last two axes swapped (transA), after its first axis
     * was moved behind its batch axes (transBatchA). B' is defined likewise.
     */
    private static boolean fusedMatMul(RewriteContext c) {
        String a = operand(c, 0, "transA", "transBatchA");
        String b = operand(c, 1, "transB", "transBatchB");
        float alpha = c.node().floatAttribute("alpha", 1);
        // The factor is applied to the smaller operand, not to the product. A weight is not scaled, to keep its
        // gradient
        // simple.
        boolean weightFirst = c.operand(0).constant() != null;
        c.result(0, weightFirst ? c.add("MatMul", a, c.scaled(b, alpha)) : c.add("MatMul", c.scaled(a, alpha), b));
        return true;
    }

    private static String operand(RewriteContext c, int position, String swap, String batch) {
        int rank = c.rank(position);
        boolean swapped = c.node().intAttribute(swap, 0) != 0 && rank > 1;
        boolean moved = c.node().intAttribute(batch, 0) != 0 && rank > 2;
        if (!swapped && !moved) {
            return c.in(position);
        }
        List<Long> order = new ArrayList<>();
        for (long axis = 0; axis < rank; axis++) {
            order.add(axis);
        }
        if (moved) {
            order.add(rank - 2, order.remove(0));
        }
        if (swapped) {
            order.add(order.remove(rank - 2));
        }
        return c.transpose(
                c.in(position), order.stream().mapToLong(Long::longValue).toArray());
    }

    /** com.microsoft.FusedGemm: a Gemm followed by the activation that its attributes name. */
    private static boolean fusedGemm(RewriteContext c) {
        Map<String, Attribute> gemm = new LinkedHashMap<>(c.node().attributes());
        gemm.keySet().removeIf(key -> key.startsWith("activation"));
        Map<String, Attribute> activation = new LinkedHashMap<>();
        c.node().attributes().forEach((key, value) -> {
            if (key.startsWith("activation_")) {
                activation.put(key.substring("activation_".length()), value);
            }
        });
        String operator = c.node().textAttribute("activation", "");
        if (operator.isEmpty()) {
            return false;
        }
        List<String> inputs = c.node().inputs();
        c.result(0, c.add(operator, List.of(c.add("Gemm", inputs, gemm)), activation));
        return true;
    }
}
