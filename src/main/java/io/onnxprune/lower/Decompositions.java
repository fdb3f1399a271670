// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import java.util.HashMap;
import java.util.Map;

/**
 * The table of decompositions. To lower a new operator, write its decomposition in the class of its family (or a new one)
 * and register it there. Operators without one stay as they are.
 */
final class Decompositions {
    /** What takes the place of one application. */
    interface Decomposition {
        /**
         * Appends the nodes and gives the results.
         *
         * @return whether it did; if not, nothing was appended and the application stays as it is
         */
        boolean apply(RewriteContext site);
    }

    /** Registers decompositions by domain and operator type. */
    static final class Table {
        private final Map<String, Decomposition> entries = new HashMap<>();

        /** Registers for operators of the default ONNX domain. */
        void onnx(Decomposition decomposition, String... operators) {
            for (String operator : operators) {
                entries.put(operator, decomposition);
            }
        }

        /** Registers for operators of ONNX Runtime's contrib domain. */
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
        QuantizedDecompositions.register(TABLE);
        DynamicQuantization.register(TABLE);
    }

    private Decompositions() {}

    /** Replaces an application; false if its operator has no decomposition, or none for this use of it. */
    static boolean apply(RewriteContext site) {
        String domain = site.node().domain();
        String operator = site.node().op();
        Decomposition decomposition = TABLE.entries.get(domain.isEmpty() ? operator : domain + "." + operator);
        return decomposition != null && decomposition.apply(site);
    }
}
