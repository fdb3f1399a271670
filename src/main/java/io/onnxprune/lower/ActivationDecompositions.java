// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Program.Op;
import java.util.List;
import java.util.Map;

/** ONNX Runtime's activations, some fused with the addition of a bias, and guards that calibration does not need. */
final class ActivationDecompositions {
    private ActivationDecompositions() {}

    static void register(Decompositions.Table table) {
        table.contrib(ActivationDecompositions::fastGelu, "FastGelu");
        table.contrib(ActivationDecompositions::gelu, "Gelu", "BiasGelu");
        table.contrib(ActivationDecompositions::quickGelu, "QuickGelu");
        table.onnx(ActivationDecompositions::guarded, "Where");
    }

    /** com.microsoft.FastGelu: the tanh approximation of Gelu, of x or x + bias. */
    private static boolean fastGelu(RewriteContext s) {
        Map<String, Attribute> tanh = Map.of("approximate", new Attribute.Text("tanh"));
        s.result(0, s.add("Gelu", List.of(s.plus(s.in(0), s.in(1))), tanh));
        return true;
    }

    /** com.microsoft.Gelu and BiasGelu: x · Φ(x), of x or x + bias. */
    private static boolean gelu(RewriteContext s) {
        s.result(0, s.add("Gelu", s.plus(s.in(0), s.in(1))));
        return true;
    }

    /** com.microsoft.QuickGelu: x · σ(alpha · x), alpha 1.702 unless given. */
    private static boolean quickGelu(RewriteContext s) {
        float alpha = s.node().floatAttribute("alpha", 1.702f);
        s.result(0, s.add("Mul", s.in(0), s.add("Sigmoid", s.scaled(s.in(0), alpha))));
        return true;
    }

    /**
     * Where(IsNaN(x), c, x), with which exporters guard a softmax over nothing but masked positions: x, since calibration
     * masks none but the later ones. A NaN that comes from elsewhere still shows in the loss.
     */
    private static boolean guarded(RewriteContext s) {
        Op test = s.operand(0).producer();
        boolean guard = test != null && test.node().is("IsNaN") && test.input(0) == s.operand(2);
        if (guard) {
            s.result(0, s.in(2));
        }
        return guard;
    }
}
