// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.calibrate.AxisReduction;
import io.onnxprune.dims.QuantizedOperands;
import io.onnxprune.dims.QuantizedOperands.Operand;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import java.util.BitSet;
import java.util.HashSet;
import java.util.Set;

/**
 * Quantised weights: the numbers of a matrix of up to 8 bits before they are scaled, relative to their zero point
 * ({@link QuantizedOperands}). With W = s·(q − z), w·∂L/∂w = (q − z)·∂L/∂q, so that scores of first and second order do
 * not need the scale.
 *
 * @param numbers q
 * @param zero z, of one element or a vector along {@code axis}; null for 0
 * @param axis the axis of {@code numbers} along which a vector of zero points lies
 */
record IntegerWeights(Tensor numbers, Tensor zero, int axis) {
    private static final Set<String> LAYOUTS = Set.of(
            "DequantizeLinear",
            "MatMulInteger",
            "MatMulIntegerToFloat",
            "DynamicQuantizeMatMul",
            "QLinearMatMul",
            "QGemm",
            "QAttention");

    /** The weights at {@code use}; null if the operator has no such weights there, or scales them by blocks. */
    static IntegerWeights at(Use use) {
        Op op = use.op();
        Tensor numbers = op.input(use.input()).constant();
        if (numbers == null || !isNumber(numbers.dtype())) {
            return null;
        }
        if (isCast(use)) {
            return new IntegerWeights(numbers, null, 0);
        }
        boolean blocked =
                op.node().intAttribute("block_size", 0) != 0 || QuantizedOperands.perElement(op.node(), numbers) > 1;
        Operand operand = blocked ? null : operand(use);
        return operand == null ? null : of(numbers, op.input(operand.zero()), axis(op.node(), numbers.rank()));
    }

    private static boolean isNumber(DType dtype) {
        return dtype.bits() > 0 && dtype.bits() <= 8 && dtype != DType.BOOL;
    }

    /** Whether the constant at {@code use} is a floating-point one of 8 bits that is only cast, so it is not scaled. */
    static boolean isCast(Use use) {
        return use.op().node().is("Cast")
                && use.op().input(0).constant() != null
                && use.op().input(0).constant().dtype().isSmallFloat();
    }

    /** The quantised operand at {@code use} if it is one of a known layout; null otherwise. */
    private static Operand operand(Use use) {
        return LAYOUTS.contains(use.op().node().op())
                ? QuantizedOperands.of(use.op().node()).stream()
                        .filter(operand -> operand.values() == use.input() && operand.zero() >= 0)
                        .filter(operand ->
                                operand.values() > 0 || use.op().node().is("DequantizeLinear"))
                        .findFirst()
                        .orElse(null)
                : null;
    }

    /** The axis along which a vector of zero points lies: one that is named, or the columns of a right matrix. */
    private static int axis(Node node, int rank) {
        if (node.is("DequantizeLinear")) {
            return Math.floorMod((int) node.intAttribute("axis", 1), Math.max(2, rank));
        }
        return node.intAttribute("transB", 0) == 0 ? rank - 1 : 0;
    }

    private static IntegerWeights of(Tensor numbers, Value zero, int axis) {
        if (numbers.dtype().isSmallFloat()) {
            return new IntegerWeights(numbers, null, axis); // their zero point is 0
        }
        Tensor point = zero == null ? null : zero.constant();
        boolean isKnown =
                zero == null || point != null && (point.elements() == 1 || point.rank() == 1 && axis < numbers.rank());
        return isKnown ? new IntegerWeights(numbers, point, axis) : null;
    }

    /**
     * The constants that only scale the weights at {@code use}. They have no importance of their own beside the
     * weights.
     */
    static Set<Tensor> scaling(Use use) {
        Set<Tensor> found = new HashSet<>();
        Operand operand = at(use) == null ? null : operand(use);
        if (operand != null) {
            for (int input : new int[] {operand.scale(), operand.zero()}) {
                Value value = input < 0 ? null : use.op().input(input);
                if (value != null && value.constant() != null) {
                    found.add(value.constant());
                }
            }
        }
        return found;
    }

    /**
     * The sums of a term with q − z in place of q.
     *
     * @param weights q where the gradients were taken
     */
    AxisReduction reduction(AxisReduction.Term term, Tensor weights, BitSet axes) {
        return new AxisReduction(term, weights, zeros(), axis, axes);
    }

    private long[] zeros() {
        return zero == null ? new long[] {0} : zero.toLongs();
    }

    /** Wraps {@code terms} so that they get q − z in place of q. */
    AxisSums.Terms counted(AxisSums.Terms terms) {
        long[] zeros = zeros();
        if (zeros.length == 1 && zeros[0] == 0) {
            return terms;
        }
        long stride = 1;
        for (int later = axis + 1; later < numbers.rank(); later++) {
            stride *= numbers.dim(later);
        }
        long step = stride;
        return (first, weights, from, count, result) -> {
            float[] counted = new float[count];
            for (int i = 0; i < count; i++) {
                counted[i] = weights[from + i] - zeros[(int) ((first + i) / step % zeros.length)];
            }
            terms.fill(first, counted, 0, count, result);
        };
    }
}
