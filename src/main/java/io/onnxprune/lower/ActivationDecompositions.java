package io.onnxprune.lower;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Program.Op;
import java.util.List;
import java.util.Map;

/** Activations that are fused with a bias, or that have no derivative of their own. */
final class ActivationDecompositions {
    private ActivationDecompositions() {}

    static void register(Decompositions.Table table) {
        table.contrib(ActivationDecompositions::fastGelu, "FastGelu");
        table.contrib(ActivationDecompositions::gelu, "Gelu", "BiasGelu");
        table.contrib(ActivationDecompositions::quickGelu, "QuickGelu");
        table.onnx(ActivationDecompositions::swish, "Swish");
        table.onnx(ActivationDecompositions::mish, "Mish");
        table.onnx(ActivationDecompositions::hardSigmoid, "HardSigmoid");
        table.onnx(ActivationDecompositions::hardSwish, "HardSwish");
        table.onnx(ActivationDecompositions::castLike, "CastLike");
        table.onnx(ActivationDecompositions::guarded, "Where");
    }

    /** com.microsoft.FastGelu: the tanh approximation of Gelu, of x or x + bias. */
    private static boolean fastGelu(Site s) {
        Map<String, Attribute> tanh = Map.of("approximate", new Attribute.Text("tanh"));
        s.result(0, s.add("Gelu", List.of(s.plus(s.in(0), s.in(1))), tanh));
        return true;
    }

    /** com.microsoft.Gelu and BiasGelu: x · Φ(x), of x or x + bias. */
    private static boolean gelu(Site s) {
        s.result(0, s.add("Gelu", s.plus(s.in(0), s.in(1))));
        return true;
    }

    /** com.microsoft.QuickGelu: x · σ(alpha · x), alpha 1.702 unless given. */
    private static boolean quickGelu(Site s) {
        s.result(0, sigmoidWeighted(s, s.node().floatAttribute("alpha", 1.702f)));
        return true;
    }

    /** Swish of opset 24: x · σ(alpha · x). */
    private static boolean swish(Site s) {
        s.result(0, sigmoidWeighted(s, s.node().floatAttribute("alpha", 1)));
        return true;
    }

    private static String sigmoidWeighted(Site s, float alpha) {
        return s.add("Mul", s.in(0), s.add("Sigmoid", s.scaled(s.in(0), alpha)));
    }

    /** Mish: x · tanh(ln(1 + eˣ)). */
    private static boolean mish(Site s) {
        s.result(0, s.add("Mul", s.in(0), s.add("Tanh", s.add("Softplus", s.in(0)))));
        return true;
    }

    /** HardSigmoid: max(0, min(1, alpha · x + beta)). */
    private static boolean hardSigmoid(Site s) {
        float alpha = s.node().floatAttribute("alpha", 0.2f);
        float beta = s.node().floatAttribute("beta", 0.5f);
        s.result(0, clippedLine(s, alpha, beta));
        return true;
    }

    /** HardSwish: x · max(0, min(1, x / 6 + 1/2)). */
    private static boolean hardSwish(Site s) {
        s.result(0, s.add("Mul", s.in(0), clippedLine(s, 1f / 6, 0.5f)));
        return true;
    }

    private static String clippedLine(Site s, float slope, float offset) {
        String line = s.add("Add", s.scaled(s.in(0), slope), s.scalar(offset));
        return s.add("Clip", line, s.scalar(0), s.scalar(1));
    }

    /** CastLike: a Cast to the type that the trace found. */
    private static boolean castLike(Site s) {
        DType dtype = s.resultType(0);
        if (dtype == DType.UNDEFINED) {
            return false;
        }
        s.result(0, s.cast(s.in(0), dtype));
        return true;
    }

    /**
     * Where(IsNaN(x), c, x), with which exporters guard a softmax over nothing but masked positions: x, since calibration
     * masks none but the later ones. A NaN that comes from elsewhere still shows in the loss.
     */
    private static boolean guarded(Site s) {
        Op test = s.operand(0).producer();
        boolean guard = test != null && test.node().is("IsNaN") && test.input(0) == s.operand(2);
        if (guard) {
            s.result(0, s.add("Identity", s.in(2)));
        }
        return guard;
    }
}
