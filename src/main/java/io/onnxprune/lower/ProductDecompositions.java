// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.ir.Attribute;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Matrix products fused with transpositions, scaling or an activation. */
final class ProductDecompositions {
    private ProductDecompositions() {}

    static void register(Decompositions.Table table) {
        table.contrib(ProductDecompositions::fusedMatMul, "FusedMatMul", "TransposeMatMul");
        table.contrib(ProductDecompositions::fusedGemm, "FusedGemm");
    }

    /**
     * com.microsoft.FusedMatMul: alpha · A'B' where A' is A with its last two axes swapped (transA), after its first axis was
     * moved behind its batch axes (transBatchA); B' likewise.
     */
    private static boolean fusedMatMul(RewriteContext s) {
        String a = operand(s, 0, "transA", "transBatchA");
        String b = operand(s, 1, "transB", "transBatchB");
        float alpha = s.node().floatAttribute("alpha", 1);
        // The smaller operand bears the factor, not the product; a weight keeps its gradient simple.
        boolean weightFirst = s.operand(0).constant() != null;
        s.result(0, weightFirst ? s.add("MatMul", a, s.scaled(b, alpha)) : s.add("MatMul", s.scaled(a, alpha), b));
        return true;
    }

    private static String operand(RewriteContext s, int position, String swap, String batch) {
        int rank = s.rank(position);
        boolean swapped = s.node().intAttribute(swap, 0) != 0 && rank > 1;
        boolean moved = s.node().intAttribute(batch, 0) != 0 && rank > 2;
        if (!swapped && !moved) {
            return s.in(position);
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
        return s.transpose(
                s.in(position), order.stream().mapToLong(Long::longValue).toArray());
    }

    /** com.microsoft.FusedGemm: a Gemm whose result goes through the activation that the attributes name. */
    private static boolean fusedGemm(RewriteContext s) {
        Map<String, Attribute> gemm = new LinkedHashMap<>(s.node().attributes());
        gemm.keySet().removeIf(key -> key.startsWith("activation"));
        Map<String, Attribute> activation = new LinkedHashMap<>();
        s.node().attributes().forEach((key, value) -> {
            if (key.startsWith("activation_")) {
                activation.put(key.substring("activation_".length()), value);
            }
        });
        String operator = s.node().textAttribute("activation", "");
        if (operator.isEmpty()) {
            return false;
        }
        List<String> inputs = s.node().inputs();
        s.result(0, s.add(operator, List.of(s.add("Gemm", inputs, gemm)), activation));
        return true;
    }
}
