// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import static io.onnxprune.autodiff.UnaryDerivatives.mul;
import static io.onnxprune.autodiff.UnaryDerivatives.scaled;
import static io.onnxprune.autodiff.UnaryDerivatives.zero;

import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import java.util.HashSet;
import java.util.Set;

/**
 * Derivatives of element-wise functions of several operands with broadcasting. The gradient of an operand is summed
 * over the axes on which it was broadcast.
 *
 * <p>Operands that tie for the minimum or maximum share the gradient equally, as in PyTorch.
 */
final class BroadcastDerivatives {
    private BroadcastDerivatives() {}

    static void register(Derivatives.Table table) {
        table.addElementwise(BroadcastDerivatives::sum, "Add", "Sum");
        table.addElementwise(BroadcastDerivatives::difference, "Sub");
        table.addElementwise(BroadcastDerivatives::product, "Mul");
        table.addElementwise(BroadcastDerivatives::quotient, "Div");
        table.addElementwise(BroadcastDerivatives::power, "Pow");
        table.addElementwise(BroadcastDerivatives::mean, "Mean");
        table.addElementwise(BroadcastDerivatives::extreme, "Min", "Max");
        table.addElementwise(BroadcastDerivatives::choice, "Where");
        table.addElementwise(BroadcastDerivatives::clip, "Clip");
        table.addElementwise(BroadcastDerivatives::slopedRelu, "PRelu");
    }

    /**
     * The gradient {@code name}, computed from {@code g} and {@code others}, with the axes on which it is not yet
     * broadcast.
     */
    private static Gradient mixed(Derivation d, Gradient g, String name, Value... others) {
        Set<Integer> axes = new HashSet<>(g.stretched());
        for (Value other : others) {
            axes.retainAll(d.graph().broadcastAxes(other, d.output()));
        }
        return g.renamed(name, axes);
    }

    private static void sum(Derivation d) {
        Gradient g = d.incoming(0);
        for (int i = 0; i < d.op().inputs().size(); i++) {
            if (d.wants(i)) {
                d.giveBroadcast(i, g);
            }
        }
    }

    private static void difference(Derivation d) {
        Gradient g = d.incoming(0);
        if (d.wants(0)) {
            d.giveBroadcast(0, g);
        }
        if (d.wants(1)) {
            // Negated after the sum, when it is smaller.
            Gradient summed = d.graph().sumToShape(g, d.output(), d.input(1));
            d.give(1, summed.renamed(d.graph().add("Neg", summed.name())));
        }
    }

    private static void product(Derivation d) {
        Gradient g = d.incoming(0);
        if (d.wants(0) && d.input(0) == d.input(1)) {
            d.give(0, mixed(d, g, mul(d, scaled(d, g.name(), 2), d.in(0)), d.input(0)));
            d.giveZero(1);
            return;
        }
        for (int i = 0; i < 2; i++) {
            if (d.wants(i)) {
                d.giveBroadcast(i, mixed(d, g, mul(d, g.name(), d.in(1 - i)), d.input(1 - i)));
            }
        }
    }

    /** da = g/b, db = -y·g/b. */
    private static void quotient(Derivation d) {
        Gradient g = d.incoming(0);
        String ratio = d.graph().add("Div", g.name(), d.in(1));
        if (d.wants(0)) {
            d.giveBroadcast(0, mixed(d, g, ratio, d.input(1)));
        }
        if (d.wants(1)) {
            Gradient product = mixed(d, g, mul(d, ratio, d.out()), d.output());
            Gradient summed = d.graph().sumToShape(product, d.output(), d.input(1));
            d.give(1, summed.renamed(d.graph().add("Neg", summed.name())));
        }
    }

    /** da = g·b·a^(b-1), db = g·y·ln a (0 where a is 0, as in PyTorch). */
    private static void power(Derivation d) {
        Gradient g = d.incoming(0);
        if (d.wants(0)) {
            Double exponent = exponent(d.input(1));
            if (exponent == null) {
                String b = d.graph().cast(d.in(1), d.graph().precision(d.output()));
                String one = d.graph().scalar(d.output(), 1);
                String lower = d.graph().add("Pow", d.in(0), d.graph().add("Sub", b, one));
                String product = mul(d, mul(d, g.name(), b), lower);
                d.giveBroadcast(0, mixed(d, g, product, d.input(0), d.input(1)));
            } else {
                d.giveBroadcast(0, constantPower(d, g, exponent));
            }
        }
        if (d.wants(1)) {
            String isZero = d.graph().add("Equal", d.in(0), zero(d));
            String slope = mul(d, d.out(), d.graph().add("Log", d.in(0)));
            String product = mul(d, g.name(), d.graph().add("Where", isZero, zero(d), slope));
            d.giveBroadcast(1, mixed(d, g, product, d.output()));
        }
    }

    private static Gradient constantPower(Derivation d, Gradient g, double exponent) {
        String x = d.in(0);
        if (exponent == 1) {
            return g;
        }
        String start = scaled(d, g.name(), exponent);
        String product;
        if (exponent == 2) {
            product = mul(d, start, x);
        } else if (exponent == 3) {
            product = mul(d, start, mul(d, x, x));
        } else if (exponent == 0.5) {
            product = d.graph().add("Div", start, d.out());
        } else {
            product = mul(d, start, d.graph().add("Pow", x, d.graph().scalar(d.output(), exponent - 1)));
        }
        return mixed(d, g, product, d.input(0));
    }

    /** The exponent when it is one constant number, else null. */
    private static Double exponent(Value value) {
        Tensor tensor = value.constant();
        if (tensor == null || tensor.elements() != 1 || tensor.bytes() == null) {
            return null;
        }
        if (tensor.dtype().isFloat()) {
            return (double) tensor.toFloats()[0];
        }
        return tensor.dtype().isIndex() ? Double.valueOf((double) tensor.toLongs()[0]) : null;
    }

    private static void mean(Derivation d) {
        Gradient g = d.incoming(0);
        Gradient share = g.renamed(scaled(d, g.name(), 1.0 / d.node().inputs().size()));
        for (int i = 0; i < d.op().inputs().size(); i++) {
            if (d.wants(i)) {
                d.giveBroadcast(i, share);
            }
        }
    }

    /** Each operand that equals the result gets the gradient, divided by the number of such operands. */
    private static void extreme(Derivation d) {
        Gradient g = d.incoming(0);
        int count = d.node().inputs().size();
        String[] chosen = new String[count];
        for (int i = 0; i < count; i++) {
            String equal = d.graph().add("Equal", d.in(i), d.out());
            chosen[i] = d.graph().cast(equal, d.graph().precision(d.output()));
        }
        String ties = count == 1 ? chosen[0] : d.graph().add("Sum", chosen);
        String share = d.graph().add("Div", g.name(), ties);
        for (int i = 0; i < count; i++) {
            if (d.wants(i)) {
                d.giveBroadcast(i, mixed(d, g, mul(d, share, chosen[i]), d.output()));
            }
        }
    }

    private static void choice(Derivation d) {
        Gradient g = d.incoming(0);
        String condition = d.input(0).name();
        if (d.wants(1)) {
            d.giveBroadcast(1, mixed(d, g, d.graph().add("Where", condition, g.name(), zero(d)), d.input(0)));
        }
        if (d.wants(2)) {
            d.giveBroadcast(2, mixed(d, g, d.graph().add("Where", condition, zero(d), g.name()), d.input(0)));
        }
    }

    /** The gradient passes where the operand is within the bounds, inclusive. */
    private static void clip(Derivation d) {
        Gradient g = d.incoming(0);
        if (d.wants(0)) {
            String inside = d.graph().add("Equal", d.in(0), d.out());
            d.give(0, d.graph().add("Where", inside, g.name(), zero(d)));
        }
        for (int i = 1; i < 3; i++) {
            if (d.wants(i)) {
                String outside = d.graph().add(i == 1 ? "Less" : "Greater", d.in(0), d.in(i));
                d.giveBroadcast(i, Gradient.full(d.graph().add("Where", outside, g.name(), zero(d))));
            }
        }
    }

    /** y = x where x is positive, else slope·x. */
    private static void slopedRelu(Derivation d) {
        Gradient g = d.incoming(0);
        String positive = d.graph().add("Greater", d.in(0), zero(d));
        if (d.wants(0)) {
            d.give(0, d.graph().add("Where", positive, g.name(), mul(d, g.name(), d.in(1))));
        }
        if (d.wants(1)) {
            String product = mul(d, g.name(), d.in(0));
            d.giveBroadcast(1, Gradient.full(d.graph().add("Where", positive, zero(d), product)));
        }
    }
}
