// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import java.util.HashMap;
import java.util.Map;

/**
 * The table of decompositions. To lower a new operator, write its decomposition in the class of its family (or in a
 * new one) and register it there. Operators without a decomposition are kept.
 */
final class Decompositions {
    /** Replaces one operator application by nodes of standard operators. */
    interface Decomposition {
        /**
         * Appends the nodes and sets the results.
         *
         * @return whether it did; if not, nothing was appended and the operator is kept
         */
        boolean apply(RewriteContext context);
    }

    /** Registers decompositions by domain and operator type. */
    static final class Table {
        private final Map<String, Decomposition> entries = new HashMap<>();

        /** Registers a decomposition for operators of the default ONNX domain. */
        void onnx(Decomposition decomposition, String... operators) {
            for (String operator : operators) {
                entries.put(operator, decomposition);
            }
        }

        /** Registers a decomposition for operators of ONNX Runtime's contrib domain. */
        void contrib(Decomposition decomposition, String... operators) {
            for (String operator : operators) {
                entries.put("com.microsoft." + operator, decomposition);
            }
        }
    }

    private static final Table TABLE = new Table();

    static {
        ActivationDecompositions.register(TABLE);
        NormDecompositions.register(TABLE);
        ProductDecompositions.register(TABLE);
        Rotary.register(TABLE);
        AttentionDecompositions.register(TABLE);
        MultiHeadDecompositions.register(TABLE);
        RecurrentDecompositions.register(TABLE);
        QuantizedDecompositions.register(TABLE);
        DynamicQuantization.register(TABLE);
        ExpertDecompositions.register(TABLE);
        SelectedProducts.register(TABLE);
    }

    private Decompositions() {}

    /** Replaces one operator application; returns false when its operator has no decomposition for this use. */
    static boolean apply(RewriteContext context) {
        String domain = context.node().domain();
        String operator = context.node().op();
        Decomposition decomposition = TABLE.entries.get(domain.isEmpty() ? operator : domain + "." + operator);
        return decomposition != null && decomposition.apply(context);
    }
}
