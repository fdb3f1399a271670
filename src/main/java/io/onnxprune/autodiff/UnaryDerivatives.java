// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

/**
 * Derivatives of element-wise functions of one operand: dx = g · f'(x), in terms of the result y where that is
 * cheaper.
 *
 * <p>Definitions of the activations are those of the ONNX operator specification. At kinks the derivative is that of
 * PyTorch: 0 at 0 for Relu and Abs, the left one for LeakyRelu and Elu.
 */
final class UnaryDerivatives {
    private static final double SQRT_HALF = Math.sqrt(0.5);
    private static final double SQRT_2_OVER_PI = Math.sqrt(2 / Math.PI);
    private static final double GELU_CUBIC = 0.044715;

    /** Appends g · f'(x). */
    private interface Local {
        String gradient(Derivation d, String g, String x, String y);
    }

    private UnaryDerivatives() {}

    static void register(Derivatives.Table table) {
        table.addElementwise(UnaryDerivatives::negative, "Neg");
        add(table, (d, g, x, y) -> d.graph().add("Div", scaled(d, g, 0.5), y), "Sqrt");
        add(table, (d, g, x, y) -> mul(d, d.graph().add("Neg", g), mul(d, y, y)), "Reciprocal");
        add(table, (d, g, x, y) -> mul(d, g, y), "Exp");
        add(table, (d, g, x, y) -> d.graph().add("Div", g, x), "Log");
        add(table, (d, g, x, y) -> mul(d, g, d.graph().add("Sign", x)), "Abs");
        add(table, UnaryDerivatives::erf, "Erf");
        add(table, (d, g, x, y) -> mul(d, g, oneMinus(d, mul(d, y, y))), "Tanh");
        add(table, (d, g, x, y) -> mul(d, g, mul(d, y, oneMinus(d, y))), "Sigmoid");
        add(table, (d, g, x, y) -> mul(d, g, d.graph().add("Sigmoid", x)), "Softplus");
        add(table, (d, g, x, y) -> where(d, greater(d, x, 0), g, zero(d)), "Relu");
        add(
                table,
                (d, g, x, y) ->
                        where(d, greater(d, x, 0), g, scaled(d, g, d.node().floatAttribute("alpha", 0.01f))),
                "LeakyRelu");
        add(table, UnaryDerivatives::elu, "Elu");
        add(table, UnaryDerivatives::hardSigmoid, "HardSigmoid");
        add(table, UnaryDerivatives::hardSwish, "HardSwish");
        add(table, UnaryDerivatives::gelu, "Gelu");
        add(table, UnaryDerivatives::swish, "Swish");
        add(table, UnaryDerivatives::mish, "Mish");
        add(table, UnaryDerivatives::softsign, "Softsign");
        add(table, (d, g, x, y) -> mul(d, g, d.graph().add("Cos", x)), "Sin");
        add(table, (d, g, x, y) -> mul(d, d.graph().add("Neg", g), d.graph().add("Sin", x)), "Cos");
    }

    private static void add(Derivatives.Table table, Local local, String operator) {
        table.addElementwise(
                d -> {
                    // The gradient need not be expanded, because the other factor has the full shape.
                    Gradient g = d.incoming(0);
                    d.give(0, local.gradient(d, g.name(), d.in(0), d.out()));
                },
                operator);
    }

    private static void negative(Derivation d) {
        Gradient g = d.incoming(0);
        d.give(0, g.renamed(d.graph().add("Neg", g.name())));
    }

    static String mul(Derivation d, String a, String b) {
        return d.graph().add("Mul", a, b);
    }

    static String scaled(Derivation d, String name, double factor) {
        return mul(d, name, d.graph().scalar(d.output(), factor));
    }

    private static String shifted(Derivation d, String name, double summand) {
        return d.graph().add("Add", name, d.graph().scalar(d.output(), summand));
    }

    private static String oneMinus(Derivation d, String name) {
        return d.graph().add("Sub", d.graph().scalar(d.output(), 1), name);
    }

    static String zero(Derivation d) {
        return d.graph().scalar(d.output(), 0);
    }

    private static String greater(Derivation d, String x, double bound) {
        return d.graph().add("Greater", x, d.graph().scalar(d.output(), bound));
    }

    private static String where(Derivation d, String condition, String yes, String no) {
        return d.graph().add("Where", condition, yes, no);
    }

    /** erf'(x) = 2/√π · exp(-x²). */
    private static String erf(Derivation d, String g, String x, String y) {
        String bell = d.graph().add("Exp", d.graph().add("Neg", mul(d, x, x)));
        return mul(d, scaled(d, g, 2 / Math.sqrt(Math.PI)), bell);
    }

    /** y = α(eˣ - 1) for x ≤ 0, where y' = y + α. */
    private static String elu(Derivation d, String g, String x, String y) {
        String slope = shifted(d, y, d.node().floatAttribute("alpha", 1));
        return where(d, greater(d, x, 0), g, mul(d, g, slope));
    }

    /** y = clip(αx + β, 0, 1): y' = α strictly inside, else 0. */
    private static String hardSigmoid(Derivation d, String g, String x, String y) {
        String one = d.graph().scalar(d.output(), 1);
        String inside = d.graph().add("And", greater(d, y, 0), d.graph().add("Less", y, one));
        return where(d, inside, scaled(d, g, d.node().floatAttribute("alpha", 0.2f)), zero(d));
    }

    /** y = x · clip(x/6 + 1/2, 0, 1): y' = 0 below -3, 1 above 3, x/3 + 1/2 between. */
    private static String hardSwish(Derivation d, String g, String x, String y) {
        String between = shifted(d, scaled(d, x, 1.0 / 3), 0.5);
        String upper = where(d, greater(d, x, 3), d.graph().scalar(d.output(), 1), between);
        String slope = where(d, greater(d, x, -3), upper, zero(d));
        return mul(d, g, slope);
    }

    /** y = x·Φ(x), or its approximation x/2·(1 + tanh u) with u = √(2/π)·(x + 0.044715x³). */
    private static String gelu(Derivation d, String g, String x, String y) {
        BackwardGraph graph = d.graph();
        String square = mul(d, x, x);
        String slope;
        if (d.node().textAttribute("approximate", "none").equals("tanh")) {
            // u = x·(a + b·x²), u' = a + 3b·x²
            double cubic = SQRT_2_OVER_PI * GELU_CUBIC;
            String u = mul(d, x, shifted(d, scaled(d, square, cubic), SQRT_2_OVER_PI));
            String du = shifted(d, scaled(d, square, 3 * cubic), SQRT_2_OVER_PI);
            String tanh = graph.add("Tanh", u);
            String bend = mul(d, mul(d, x, du), oneMinus(d, mul(d, tanh, tanh)));
            slope = scaled(d, shifted(d, graph.add("Add", tanh, bend), 1), 0.5);
        } else {
            String cumulative = scaled(d, shifted(d, graph.add("Erf", scaled(d, x, SQRT_HALF)), 1), 0.5);
            String density = scaled(d, graph.add("Exp", scaled(d, square, -0.5)), 1 / Math.sqrt(2 * Math.PI));
            slope = graph.add("Add", cumulative, mul(d, x, density));
        }
        return mul(d, g, slope);
    }

    /** y = x·s with s = σ(αx): y' = s + αy(1 - s). */
    private static String swish(Derivation d, String g, String x, String y) {
        double alpha = d.node().floatAttribute("alpha", 1);
        String s = d.graph().add("Sigmoid", scaled(d, x, alpha));
        return mul(d, g, d.graph().add("Add", s, mul(d, scaled(d, y, alpha), oneMinus(d, s))));
    }

    /** y = x·t with t = tanh(softplus x): y' = t + x(1 - t²)σ(x). */
    private static String mish(Derivation d, String g, String x, String y) {
        String t = d.graph().add("Tanh", d.graph().add("Softplus", x));
        String bend = mul(d, mul(d, x, oneMinus(d, mul(d, t, t))), d.graph().add("Sigmoid", x));
        return mul(d, g, d.graph().add("Add", t, bend));
    }

    /** y = x/(1 + |x|): y' = 1/(1 + |x|)². */
    private static String softsign(Derivation d, String g, String x, String y) {
        String denominator = shifted(d, d.graph().add("Abs", x), 1);
        return d.graph().add("Div", g, mul(d, denominator, denominator));
    }
}
