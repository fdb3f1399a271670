// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Program.Op;
import java.util.List;
import java.util.Map;

/**
 * Decompositions of ONNX Runtime's activations, some of them fused with a bias, and of guards that calibration does
 * not need.
 */
final class ActivationDecompositions {
    private ActivationDecompositions() {}

    static void register(Decompositions.Table table) {
        table.contrib(ActivationDecompositions::fastGelu, "FastGelu");
        table.contrib(ActivationDecompositions::gelu, "Gelu", "BiasGelu");
        table.contrib(ActivationDecompositions::quickGelu, "QuickGelu");
        table.onnx(ActivationDecompositions::swiGlu, "SwiGLU");
        table.onnx(ActivationDecompositions::guarded, "Where");
    }

    /** com.microsoft.FastGelu: the tanh approximation of Gelu, applied to x or x + bias. */
    private static boolean fastGelu(RewriteContext c) {
        Map<String, Attribute> tanh = Map.of("approximate", new Attribute.Text("tanh"));
        c.result(0, c.add("Gelu", List.of(c.plus(c.in(0), c.in(1))), tanh));
        return true;
    }

    /** com.microsoft.Gelu and BiasGelu: x · Φ(x), applied to x or x + bias. */
    private static boolean gelu(RewriteContext c) {
        c.result(0, c.add("Gelu", c.plus(c.in(0), c.in(1))));
        return true;
    }

    /** com.microsoft.QuickGelu: x · σ(alpha · x), with alpha 1.702 by default. */
    private static boolean quickGelu(RewriteContext c) {
        float alpha = c.node().floatAttribute("alpha", 1.702f);
        c.result(0, c.add("Mul", c.in(0), c.add("Sigmoid", c.scaled(c.in(0), alpha))));
        return true;
    }

    /** SwiGLU of opset 28: a · σ(alpha · a) · b, with alpha 1 by default. */
    private static boolean swiGlu(RewriteContext c) {
        float alpha = c.node().floatAttribute("alpha", 1);
        String gate = c.add("Mul", c.in(0), c.add("Sigmoid", c.scaled(c.in(0), alpha)));
        c.result(0, c.add("Mul", gate, c.in(1)));
        return true;
    }

    /**
     * Where(IsNaN(x), c, x), by which exporters guard a softmax over masked positions only. It is replaced by x,
     * because every position of a calibration row attends at least to itself. A NaN from another cause still shows in
     * the loss.
     */
    private static boolean guarded(RewriteContext c) {
        Op test = c.operand(0).producer();
        boolean guard = test != null && test.node().is("IsNaN") && test.input(0) == c.operand(2);
        if (guard) {
            c.result(0, c.in(2));
        }
        return guard;
    }
}
