// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.ir.DType;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * Which operands of an operator are quantised numbers, and which scale and shift them (the operator specifications of
 * ONNX and of ONNX Runtime's contrib domain). A quantised operand q stands for (q − zero point) · scale.
 */
public final class QuantizedOperands {
    /**
     * One quantised operand.
     *
     * @param values input of the numbers; -1 for the result of the node
     * @param scale input of the scale; -1 if the operator has none
     * @param zero input of the zero point; -1 if the operator has none
     */
    public record Operand(int values, int scale, int zero) {}

    /** What an input of an operator is. */
    public enum Part {
        /** Quantised numbers, or a bias of a quantised operator. */
        VALUES,
        /** A scale or a zero point, which only say what quantised numbers stand for. */
        ENCODING,
        /** Anything else. */
        OTHER
    }

    private static final String CONTRIB = "com.microsoft.";

    private static final Map<String, List<Operand>> TABLE = new HashMap<>();

    static {
        List<Operand> linear = List.of(new Operand(0, 1, 2));
        List<Operand> two = List.of(new Operand(0, 1, 2), new Operand(3, 4, 5), new Operand(-1, 6, 7));
        List<Operand> integers = List.of(new Operand(0, -1, 2), new Operand(1, -1, 3));
        TABLE.put("DequantizeLinear", linear);
        TABLE.put(CONTRIB + "DequantizeLinear", linear);
        TABLE.put("QuantizeLinear", List.of(new Operand(-1, 1, 2)));
        TABLE.put(CONTRIB + "QuantizeLinear", List.of(new Operand(-1, 1, 2)));
        TABLE.put("MatMulInteger", integers);
        TABLE.put("ConvInteger", integers);
        TABLE.put("QLinearMatMul", two);
        TABLE.put(CONTRIB + "QLinearAdd", two);
        TABLE.put(CONTRIB + "QLinearMul", two);
        TABLE.put("QLinearConv", with(two, new Operand(8, -1, -1)));
        TABLE.put(CONTRIB + "QLinearConv", TABLE.get("QLinearConv"));
        TABLE.put(
                CONTRIB + "QGemm",
                List.of(new Operand(0, 1, 2), new Operand(3, 4, 5), new Operand(6, -1, -1), new Operand(-1, 7, 8)));
        for (String unary : List.of("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax")) {
            TABLE.put(CONTRIB + unary, List.of(new Operand(0, 1, 2), new Operand(-1, 3, 4)));
        }
        TABLE.put(CONTRIB + "MatMulIntegerToFloat", List.of(new Operand(0, 2, 4), new Operand(1, 3, 5)));
        TABLE.put(CONTRIB + "DynamicQuantizeMatMul", List.of(new Operand(1, 2, 3)));
        TABLE.put(CONTRIB + "QAttention", List.of(new Operand(0, 3, 6), new Operand(1, 4, 7)));
        TABLE.put(CONTRIB + "MatMulNBits", List.of(new Operand(1, 2, 3)));
        TABLE.put(CONTRIB + "MatMulBnb4", List.of(new Operand(1, 2, -1)));
        TABLE.put(CONTRIB + "GatherBlockQuantized", List.of(new Operand(0, 2, 3)));
        TABLE.put(CONTRIB + "QMoE", List.of(new Operand(2, 3, 11), new Operand(5, 6, 12), new Operand(8, 9, 13)));
    }

    private QuantizedOperands() {}

    private static List<Operand> with(List<Operand> operands, Operand last) {
        return java.util.stream.Stream.concat(operands.stream(), java.util.stream.Stream.of(last))
                .toList();
    }

    /** The quantised operands of a node; empty for an operator without any. */
    public static List<Operand> of(Node node) {
        return TABLE.getOrDefault(node.domain().isEmpty() ? node.op() : node.domain() + '.' + node.op(), List.of());
    }

    /** The input with the zero point of a node's result; -1 if the result is not quantised. */
    public static int resultZero(Node node) {
        return of(node).stream()
                .filter(operand -> operand.values < 0)
                .mapToInt(Operand::zero)
                .findFirst()
                .orElse(-1);
    }

    /** What input {@code input} of a node is. */
    public static Part part(Node node, int input) {
        for (Operand operand : of(node)) {
            if (operand.values == input) {
                return Part.VALUES;
            }
            if (operand.scale == input || operand.zero == input) {
                return Part.ENCODING;
            }
        }
        return Part.OTHER;
    }

    /**
     * The number of integers in each element of a quantised operand: more than one where an operator packs several into
     * a byte.
     *
     * @param tensor the operand
     */
    public static int perElement(Node node, Tensor tensor) {
        return perElement(node, tensor.dtype());
    }

    /** As {@link #perElement(Node, Tensor)}, for an operand of a type. */
    static int perElement(Node node, DType dtype) {
        boolean bytes = dtype == DType.UINT8 || dtype == DType.INT8;
        long bits = bytes ? bits(node) : 8;
        return bits > 0 && bits < 8 ? (int) (8 / bits) : 1;
    }

    /** The bits of one integer by the attributes of an operator, which are also those of operators without a rule. */
    private static long bits(Node node) {
        return switch (node.op()) {
            case "MatMulNBits", "GatherBlockQuantized" -> node.intAttribute("bits", 4);
            case "MatMulBnb4" -> 4;
            case "QMoE" -> node.intAttribute("expert_weight_bits", 4);
            default -> node.domain().isEmpty() ? 8 : node.intAttribute("bits", 8);
        };
    }
}
