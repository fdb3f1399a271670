// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import java.util.ArrayList;
import java.util.List;

/** Rules of layer normalisations, which keep the shape and take a mean over the trailing axes. */
final class NormalizationRules {
    private NormalizationRules() {}

    static void register(OperatorRules.Table table) {
        // ONNX Runtime registers SimplifiedLayerNormalization in the default domain.
        table.onnx(
                NormalizationRules::normalize,
                "LayerNormalization",
                "RMSNormalization",
                "SimplifiedLayerNormalization");
        table.contrib(NormalizationRules::normalize, "LayerNormalization", "SimplifiedLayerNormalization");
        table.contrib(NormalizationRules::skipNormalize, "SkipLayerNormalization", "SkipSimplifiedLayerNormalization");
        table.onnx(NormalizationRules::lengthNormalize, "LpNormalization");
    }

    private static void normalize(RuleContext c) {
        Dim[] x = c.in(0);
        int axis = RuleContext.axis(c.node().intAttribute("axis", -1), x.length);
        c.unifyAll(x, c.out(0));
        ElementwiseRules.align(c, c.in(1), x);
        ElementwiseRules.align(c, c.in(2), x);
        statistics(c, x, axis, 1, 2);
        c.mean(0, from(axis, x.length));
    }

    private static void lengthNormalize(RuleContext c) {
        Dim[] x = c.in(0);
        c.unifyAll(x, c.out(0));
        c.pin(x[RuleContext.axis(c.node().intAttribute("axis", -1), x.length)], "divided by its length");
    }

    /** Normalises input + skip (+ bias). Output 3 is the sum. */
    private static void skipNormalize(RuleContext c) {
        Dim[] x = c.in(0);
        ElementwiseRules.align(c, c.in(1), x);
        c.unifyAll(x, c.out(0));
        for (int i = 2; i < c.op().inputs().size(); i++) {
            ElementwiseRules.align(c, c.in(i), x);
        }
        if (c.out(3) != null) {
            c.unifyAll(x, c.out(3));
        }
        statistics(c, x, x.length - 1, 1, 2);
        c.mean(0, from(x.length - 1, x.length));
    }

    /**
     * The optional outputs mean and inverse standard deviation. Their shape is the input's with extent one on
     * normalised axes.
     */
    private static void statistics(RuleContext c, Dim[] x, int axis, int... outputs) {
        for (int output : outputs) {
            Dim[] out = c.out(output);
            for (int i = 0; out != null && i < axis; i++) {
                c.unifyBroadcast(x[i], out[i]);
            }
        }
    }

    private static List<Integer> from(int axis, int rank) {
        List<Integer> axes = new ArrayList<>();
        for (int i = axis; i < rank; i++) {
            axes.add(i);
        }
        return axes;
    }
}
