// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import io.onnxprune.ir.Node;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;

/**
 * The table of operator derivatives. To support a new operator, write its rule in the class of its family (or in a new
 * one) and register it there. A rule computes the wanted gradients of the operands from those of the results.
 */
final class Derivatives {
    /** The derivative of one operator. */
    interface Rule {
        void apply(Derivation derivation);
    }

    /** Registers rules by operator of the default ONNX domain. */
    static final class Table {
        private final Map<String, Rule> rules = new HashMap<>();
        private final Set<String> stops = new HashSet<>();
        private final Set<String> elementwise = new HashSet<>(Set.of(
                "And",
                "Cast",
                "Ceil",
                "Equal",
                "Floor",
                "Greater",
                "GreaterOrEqual",
                "Identity",
                "IsInf",
                "IsNaN",
                "Less",
                "LessOrEqual",
                "Mod",
                "Not",
                "Or",
                "Round",
                "Sign",
                "Xor"));

        void add(Rule rule, String... operators) {
            for (String operator : operators) {
                rules.put(operator, rule);
            }
        }

        /** Registers element-wise operators with broadcasting. */
        void addElementwise(Rule rule, String... operators) {
            add(rule, operators);
            elementwise.addAll(Set.of(operators));
        }

        /** Registers operators whose results are piecewise constant in their operands or depend only on shapes. */
        void addStops(String... operators) {
            stops.addAll(Set.of(operators));
        }
    }

    private static final Table TABLE = new Table();

    static {
        UnaryDerivatives.register(TABLE);
        BroadcastDerivatives.register(TABLE);
        ReductionDerivatives.register(TABLE);
        ProductDerivatives.register(TABLE);
        ConvolutionDerivatives.register(TABLE);
        NormalizationDerivatives.register(TABLE);
        LayoutDerivatives.register(TABLE);
        SliceDerivatives.register(TABLE);
        IndexDerivatives.register(TABLE);
        // Operators with integer or boolean results need no entry, because these have no gradients.
        TABLE.addStops(
                "Bernoulli",
                "Ceil",
                "ConstantOfShape",
                "EyeLike",
                "Floor",
                "RandomNormalLike",
                "RandomUniformLike",
                "Round",
                "Shape",
                "Sign",
                "Size");
    }

    private Derivatives() {}

    /** Whether an operator is element-wise with broadcasting. */
    static boolean isElementwise(String operator) {
        return TABLE.elementwise.contains(operator);
    }

    /** The rule of a node's operator; null when there is none. */
    static Rule find(Node node) {
        return node.domain().isEmpty() ? TABLE.rules.get(node.op()) : null;
    }

    /** Whether the derivative of a node's operator is zero by definition. */
    static boolean stops(Node node) {
        return node.domain().isEmpty() && TABLE.stops.contains(node.op());
    }
}
