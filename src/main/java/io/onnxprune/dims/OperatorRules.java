// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import java.util.HashMap;
import java.util.Map;

/**
 * The table of operator rules. To support a new operator, write its rule in the class of its family (or in a new one)
 * and register it there. A rule unifies the dimensions of operands and results, pins dimensions that cannot change,
 * and records which integers and attributes encode sizes.
 */
final class OperatorRules {
    /** The effect of one operator on dimensions. */
    interface Rule {
        void apply(RuleContext context);
    }

    /** Registers rules by domain and operator type. */
    static final class Table {
        private final Map<String, Rule> rules = new HashMap<>();

        /** Registers {@code rule} for operators of the default ONNX domain. */
        void onnx(Rule rule, String... operators) {
            for (String operator : operators) {
                rules.put(operator, rule);
            }
        }

        /** Registers {@code rule} for operators of ONNX Runtime's contrib domain. */
        void contrib(Rule rule, String... operators) {
            for (String operator : operators) {
                rules.put("com.microsoft." + operator, rule);
            }
        }

        private Rule find(String domain, String operator) {
            return rules.get(domain.isEmpty() ? operator : domain + "." + operator);
        }
    }

    private static final Table TABLE = new Table();

    static {
        ElementwiseRules.register(TABLE);
        LayoutRules.register(TABLE);
        IndexRules.register(TABLE);
        ContractionRules.register(TABLE);
        ConvolutionRules.register(TABLE);
        NormalizationRules.register(TABLE);
        FusedAttentionRules.register(TABLE);
        RecurrentRules.register(TABLE);
        ExpertRules.register(TABLE);
        QuantizationRules.register(TABLE);
        IntegerRules.register(TABLE);
    }

    private OperatorRules() {}

    /** Applies the operator's rule. Without a rule, all dimensions of its operands and results are pinned. */
    static void apply(RuleContext context) {
        Rule rule = TABLE.find(context.node().domain(), context.node().op());
        boolean traced = context.op().outputs().stream()
                .allMatch(value ->
                        value == null || context.out(context.op().outputs().indexOf(value)) != null);
        if (rule == null || !traced) {
            String reason = rule == null ? "operator without a rule" : "shapes that ONNX Runtime did not report";
            pinEverything(context, reason);
            context.unknown();
        } else {
            rule.apply(context);
        }
        Pointers.follow(context);
    }

    static void pinEverything(RuleContext context, String reason) {
        for (int i = 0; i < context.op().inputs().size(); i++) {
            context.pin(context.in(i), reason);
        }
        for (int i = 0; i < context.op().outputs().size(); i++) {
            context.pin(context.out(i), reason);
        }
    }
}
