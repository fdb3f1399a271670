// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import static io.onnxprune.autodiff.UnaryDerivatives.mul;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Program.Value;
import java.util.ArrayList;
import java.util.List;

/** Derivatives of softmax and of normalisation operators. */
final class NormalizationDerivatives {
    private NormalizationDerivatives() {}

    static void register(Derivatives.Table table) {
        table.add(NormalizationDerivatives::softmax, "Softmax");
        table.add(NormalizationDerivatives::logSoftmax, "LogSoftmax");
        table.add(NormalizationDerivatives::layerNorm, "LayerNormalization");
        table.add(NormalizationDerivatives::rootMeanSquareNorm, "RMSNormalization");
    }

    private static String sumOverAxis(Derivation d, String name) {
        return d.graph().add("ReduceSum", name, d.graph().ints(d.node().intAttribute("axis", -1)));
    }

    /** dx = y⊙(g - Σ g⊙y). */
    private static void softmax(Derivation d) {
        Gradient g = d.incoming(0);
        String sum = sumOverAxis(d, mul(d, g.name(), d.out()));
        d.give(0, mul(d, d.graph().add("Sub", g.name(), sum), d.out()));
    }

    /** dx = g - exp(y)·Σ g. */
    private static void logSoftmax(Derivation d) {
        String g = d.incomingFull(0);
        String share = mul(d, d.graph().add("Exp", d.out()), sumOverAxis(d, g));
        d.give(0, d.graph().add("Sub", g, share));
    }

    /**
     * With x̂ = (x - mean)·r, r = 1/√(var + ε), y = x̂⊙s + b and h = g⊙s: dx = r·(h - mean(h) - x̂·mean(h⊙x̂)), ds = Σ
     * g⊙x̂, db = Σ g (Ba, Kiros, Hinton: Layer Normalization, arXiv 1607.06450). A second norm with scale 1 computes
     * x̂ and r together.
     */
    private static void layerNorm(Derivation d) {
        for (int i = 1; i < 3; i++) {
            if (d.op().output(i) != null && d.incoming(i) != null) {
                throw d.unsupported("its output " + i + " has no derivative");
            }
        }
        BackwardGraph graph = d.graph();
        Gradient g = d.incoming(0);
        if (d.wants(0) || d.wants(1)) {
            String ones = graph.filled(d.input(0), graph.shape(d.input(1)), 1);
            List<String> plain = graph.add("LayerNormalization", d.node().attributes(), List.of(d.in(0), ones), 3);
            String normal = plain.get(0);
            if (d.wants(1)) {
                d.giveBroadcast(1, Gradient.full(mul(d, g.name(), normal)));
            }
            if (d.wants(0)) {
                String h = mul(d, g.name(), d.in(1));
                String centred = graph.add("Sub", h, meanOfNormalised(d, h));
                String along = mul(d, normal, meanOfNormalised(d, mul(d, h, normal)));
                d.give(0, mul(d, graph.add("Sub", centred, along), inverse(d, plain.get(2))));
            }
        }
        if (d.wants(2)) {
            d.giveBroadcast(2, g);
        }
    }

    /**
     * The inverse standard deviation, cast to the precision of the gradient; the operator's output is always float32.
     */
    private static String inverse(Derivation d, String name) {
        DType precision = d.graph().precision(d.input(0));
        return precision == DType.FLOAT ? name : d.graph().cast(name, precision);
    }

    /** The mean over the axes that are normalised together. */
    private static String meanOfNormalised(Derivation d, String name) {
        return d.graph().add("ReduceMean", name, d.graph().ints(normalised(d)));
    }

    private static List<Long> normalised(Derivation d) {
        int rank = d.graph().rank(d.input(0));
        List<Long> axes = new ArrayList<>();
        for (long axis = Derivation.axis(d.node().intAttribute("axis", -1), rank); axis < rank; axis++) {
            axes.add(axis);
        }
        return axes;
    }

    /** Like a layer norm without the mean: x̂ = x·r, r = 1/√(mean x² + ε), dx = r·(h - x̂·mean(h⊙x̂)). */
    private static void rootMeanSquareNorm(Derivation d) {
        BackwardGraph graph = d.graph();
        Gradient g = d.incoming(0);
        Value x = d.input(0);
        Attribute epsilon = d.node().attributes().get("epsilon");
        double shift = epsilon instanceof Attribute.Real real ? real.value() : 1e-5f;
        String square = meanOfNormalised(d, mul(d, d.in(0), d.in(0)));
        String root = graph.add("Sqrt", graph.add("Add", square, graph.scalar(x, shift)));
        String normal = graph.add("Div", d.in(0), root);
        if (d.wants(1)) {
            d.giveBroadcast(1, Gradient.full(mul(d, g.name(), normal)));
        }
        if (d.wants(0)) {
            String h = mul(d, g.name(), d.in(1));
            String along = mul(d, normal, meanOfNormalised(d, mul(d, h, normal)));
            d.give(0, graph.add("Div", graph.add("Sub", h, along), root));
        }
    }
}
