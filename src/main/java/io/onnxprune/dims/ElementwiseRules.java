// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.ir.Node;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import java.util.stream.LongStream;

/** Rules of element-wise operators with broadcasting, and of softmax. */
final class ElementwiseRules {
    /** Operators that broadcast all operands to the shape of the result. */
    private static final Set<String> BROADCAST = Set.of(
            "Abs",
            "Acos",
            "Acosh",
            "Add",
            "And",
            "Asin",
            "Asinh",
            "Atan",
            "Atanh",
            "BitCast",
            "BitShift",
            "BitwiseAnd",
            "BitwiseNot",
            "BitwiseOr",
            "BitwiseXor",
            "Cast",
            "Ceil",
            "Celu",
            "Clip",
            "Cos",
            "Cosh",
            "Div",
            "Elu",
            "Equal",
            "Erf",
            "Exp",
            "Floor",
            "Gelu",
            "Greater",
            "GreaterOrEqual",
            "HardSigmoid",
            "HardSwish",
            "Identity",
            "IsInf",
            "IsNaN",
            "LeakyRelu",
            "Less",
            "LessOrEqual",
            "Log",
            "Max",
            "Mean",
            "Min",
            "Mish",
            "Mod",
            "Mul",
            "Neg",
            "Not",
            "Or",
            "PRelu",
            "Pow",
            "Reciprocal",
            "Relu",
            "Round",
            "Selu",
            "Shrink",
            "Sigmoid",
            "Sign",
            "Sin",
            "Sinh",
            "Softplus",
            "Softsign",
            "Sqrt",
            "Sub",
            "Sum",
            "SwiGLU",
            "Swish",
            "Tan",
            "Tanh",
            "ThresholdedRelu",
            "Where",
            "Xor");

    private ElementwiseRules() {}

    /** Whether an operator broadcasts all its operands to the shape of its result. */
    static boolean isElementwise(Node node) {
        return node.domain().isEmpty() && BROADCAST.contains(node.op());
    }

    static void register(OperatorRules.Table table) {
        table.onnx(ElementwiseRules::broadcast, BROADCAST.toArray(new String[0]));
        table.onnx(ElementwiseRules::equal, "Equal");
        table.contrib(ElementwiseRules::broadcast, "BiasGelu", "FastGelu", "Gelu", "QuickGelu");
        table.onnx(
                ElementwiseRules::first, "CastLike", "Dropout", "Bernoulli", "RandomNormalLike", "RandomUniformLike");
        table.onnx(ElementwiseRules::softmax, "Softmax", "LogSoftmax", "Hardmax");
        table.contrib(ElementwiseRules::softmax, "Softmax");
        table.onnx(ElementwiseRules::cumulative, "CumProd", "CumSum");
        table.onnx(ElementwiseRules::triangle, "Trilu");
    }

    /** NumPy broadcasting: axes are aligned at the end. An axis of extent one is stretched, so it is not unified. */
    private static void broadcast(RuleContext c) {
        for (int i = 0; i < c.op().inputs().size(); i++) {
            align(c, c.in(i), c.out(0));
        }
    }

    /** Indices are compared with one index, with all of them, or with other indices. */
    private static void equal(RuleContext c) {
        broadcast(c);
        for (int i = 0; i < 2; i++) {
            Dim target = c.target(i);
            if (target == null) {
                continue;
            }
            int other = 1 - i;
            long[] numbers = c.isConstant(other) ? c.constants(other) : null;
            if (c.target(other) != null) {
                c.unify(target, c.target(other));
            } else if (numbers != null && numbers.length == 1) {
                c.selection(other, 0, target, numbers[0]);
            } else if (numbers != null && numbersAll(numbers, target)) {
                c.numbering(other, target);
            } else {
                c.pin(target, "its indices are compared with other numbers");
            }
        }
    }

    private static boolean numbersAll(long[] numbers, Dim dim) {
        return Arrays.equals(numbers, LongStream.range(0, dim.size(0)).toArray());
    }

    static void align(RuleContext c, Dim[] operand, Dim[] result) {
        if (operand == null || result == null) {
            return;
        }
        int shift = result.length - operand.length;
        for (int axis = Math.max(0, -shift); axis < operand.length; axis++) {
            c.unifyBroadcast(operand[axis], result[axis + shift]);
        }
    }

    private static void first(RuleContext c) {
        for (int i = 0; i < c.op().outputs().size(); i++) {
            if (c.out(i) != null) {
                c.unifyAll(c.in(0), c.out(i));
            }
        }
    }

    private static void softmax(RuleContext c) {
        Dim[] out = c.out(0);
        c.unifyAll(c.in(0), out);
        // Before opset 13 the default axis was 1, and all axes from it on were normalised together.
        boolean flattens = c.op().node().domain().isEmpty() && c.opset() < 13;
        int axis = RuleContext.axis(c.node().intAttribute("axis", flattens ? 1 : -1), out.length);
        List<Dim> batch = new ArrayList<>();
        for (int i = 0; i < out.length; i++) {
            boolean single = i == axis && !out[i].isDynamic() && (!flattens || i == out.length - 1);
            if (single) {
                c.choice(0, i, true, 1);
            } else if (i == axis || flattens && i > axis) {
                c.pin(out[i], "normalised by a softmax");
            } else if (i < out.length - 2) {
                batch.add(out[i]);
            }
        }
        if (axis == out.length - 1 && c.node().is("Softmax")) {
            c.distribution(batch, out[axis]);
        }
    }

    private static void cumulative(RuleContext c) {
        Dim[] out = c.out(0);
        c.unifyAll(c.in(0), out);
        long[] axis = c.constants(1);
        for (int i = 0; i < out.length; i++) {
            if (axis == null || i == RuleContext.axis(axis[0], out.length)) {
                c.pin(out[i], "accumulated along this axis");
            }
        }
    }

    private static void triangle(RuleContext c) {
        Dim[] out = c.out(0);
        c.unifyAll(c.in(0), out);
        c.pin(out[out.length - 1], "column of a triangular mask");
        c.pin(out[out.length - 2], "row of a triangular mask");
    }
}
