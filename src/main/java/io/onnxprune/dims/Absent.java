// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import java.util.Set;
import java.util.function.IntPredicate;
import java.util.stream.IntStream;

/** What operators make of operands that are zero or empty (ONNX operator specification). */
final class Absent {
    private static final Set<String> MOVES = Set.of(
            "Cast",
            "Expand",
            "Flatten",
            "Gather",
            "GatherElements",
            "GatherND",
            "Identity",
            "Reshape",
            "Slice",
            "Split",
            "Squeeze",
            "Tile",
            "Transpose",
            "Unsqueeze");

    /** f(0) = 0, and reductions that give zero for zeros. */
    private static final Set<String> ZERO_AT_ZERO = Set.of(
            "Abs",
            "Ceil",
            "Div",
            "Erf",
            "Floor",
            "Gelu",
            "LeakyRelu",
            "Neg",
            "ReduceL1",
            "ReduceL2",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "ReduceSum",
            "ReduceSumSquare",
            "Relu",
            "Round",
            "Sign",
            "Sqrt",
            "Tanh");

    private static final Set<String> ALL_ZERO = Set.of("Add", "Concat", "Max", "Min", "Or", "Sub", "Sum", "Xor");

    /** Operators whose result has no elements when operand 0 has none, because they keep its rows. */
    private static final Set<String> ROWS = Set.of("FusedMatMul", "Gemm", "MatMul", "MatMulNBits", "Softmax");

    private static final Set<String> SELECTS = Set.of("Gather", "GatherElements", "GatherND");

    private Absent() {}

    /** Whether the result has elements of operand 0 and no others. */
    static boolean moves(Node node) {
        return node.domain().isEmpty() && MOVES.contains(node.op());
    }

    /** Whether the result has no elements. */
    static boolean isEmptied(Node node, IntPredicate empty) {
        boolean any = IntStream.range(0, node.inputs().size()).anyMatch(empty);
        if (!any) {
            return false;
        }
        boolean elementwise = ElementwiseRules.isElementwise(node);
        return elementwise
                || empty.test(0) && (moves(node) || ROWS.contains(node.op()))
                || empty.test(1) && SELECTS.contains(node.op());
    }

    /** Whether all elements of the result are zero. */
    static boolean keepsZero(Node node, IntPredicate zero) {
        if (!node.domain().isEmpty()) {
            return node.is("FusedMatMul") && (zero.test(0) || zero.test(1));
        }
        int operands = node.inputs().size();
        return switch (node.op()) {
            case "Mul", "And", "MatMul" -> zero.test(0) || zero.test(1);
            case "Gemm" -> (zero.test(0) || zero.test(1)) && (operands < 3 || zero.test(2));
            case "Where" -> zero.test(2) && (zero.test(0) || zero.test(1));
            default ->
                ZERO_AT_ZERO.contains(node.op()) && zero.test(0)
                        || moves(node) && zero.test(0)
                        || ALL_ZERO.contains(node.op())
                                && IntStream.range(0, operands).allMatch(zero);
        };
    }

    /** Whether a ConstantOfShape fills with zeros. */
    static boolean fillsZero(Node node) {
        if (!(node.attributes().get("value") instanceof Attribute.Constant constant)) {
            return true;
        }
        return isZero(constant.tensor());
    }

    static boolean isZero(Tensor tensor) {
        if (tensor.bytes() == null) {
            return false;
        }
        for (byte each : tensor.bytes().toArray()) {
            if (each != 0) {
                return false;
            }
        }
        return true;
    }
}
