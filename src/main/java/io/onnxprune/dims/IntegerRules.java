// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.dims.QuantizedOperands.Operand;
import java.util.List;
import java.util.stream.IntStream;

/**
 * Rules of operators that compute with quantised integers. A scale or zero point is a single number, or has one for
 * each index of an axis of its operand: the rows of the left matrix, the columns of the right one, or the output
 * channels of a kernel.
 */
final class IntegerRules {
    private IntegerRules() {}

    static void register(OperatorRules.Table table) {
        table.onnx(c -> product(c, 0, 1), "MatMulInteger");
        table.contrib(c -> product(c, 0, 1), "MatMulIntegerToFloat");
        table.contrib(IntegerRules::dynamicProduct, "DynamicQuantizeMatMul");
        table.onnx(c -> product(c, 0, 3), "QLinearMatMul");
        table.contrib(IntegerRules::gemm, "QGemm");
        table.contrib(IntegerRules::attention, "QAttention");
        table.onnx(c -> convolution(c, 1), "ConvInteger");
        table.onnx(c -> convolution(c, 3), "QLinearConv");
        table.contrib(c -> elementwise(c, 0, 3), "QLinearAdd", "QLinearMul");
        table.contrib(c -> elementwise(c, 0), "QLinearSigmoid", "QLinearLeakyRelu");
    }

    /** A[.., M, K] · B[.., K, N]; a bias is the last operand of MatMulIntegerToFloat and DynamicQuantizeMatMul. */
    private static void product(RuleContext c, int left, int right) {
        ContractionRules.matMul(c, left, right, false, false);
        encodings(c, left, c.in(left), c.in(left).length - 2);
        encodings(c, right, c.in(right), c.in(right).length - 1);
        encodings(c, -1, c.out(0), c.out(0).length - 1);
        switch (c.node().op()) {
            case "MatMulIntegerToFloat" -> ElementwiseRules.align(c, c.in(6), c.out(0));
            case "DynamicQuantizeMatMul" -> ElementwiseRules.align(c, c.in(4), c.out(0));
            default -> {}
        }
    }

    /** The scale and the zero point of the operand at {@code values}; -1 for the result's. */
    private static void encodings(RuleContext c, int values, Dim[] dims, int axis) {
        for (Operand operand : QuantizedOperands.of(c.node())) {
            if (operand.values() == values) {
                encoding(c, operand.scale(), dims, axis);
                encoding(c, operand.zero(), dims, axis);
            }
        }
    }

    private static void encoding(RuleContext c, int input, Dim[] dims, int axis) {
        Dim[] encoding = input < 0 ? null : c.in(input);
        if (encoding == null || encoding.length == 0) {
            return;
        }
        if (encoding.length > 1) {
            ElementwiseRules.align(c, encoding, dims);
        } else if (axis >= 0) {
            c.unifyBroadcast(encoding[0], dims[axis]);
        } else {
            c.pin(encoding, "an encoding of an operand without such an axis");
        }
    }

    private static void dynamicProduct(RuleContext c) {
        product(c, 0, 1);
        // The range of the activations is a statistic over all elements.
        c.mean(0, IntStream.range(0, c.in(0).length).boxed().toList());
    }

    /** op(A)[M, K] · op(B)[K, N] + C, with a scale and a zero point of B for each column. */
    private static void gemm(RuleContext c) {
        int transposeA = (int) c.node().intAttribute("transA", 0);
        int transposeB = (int) c.node().intAttribute("transB", 0);
        Dim[] a = c.in(0);
        Dim[] b = c.in(3);
        c.unifyBroadcast(a[1 - transposeA], b[transposeB]);
        c.contraction(a[1 - transposeA], c.isWeight(0) || c.isWeight(3));
        c.unifyBroadcast(a[transposeA], c.out(0)[0]);
        c.unifyBroadcast(b[1 - transposeB], c.out(0)[1]);
        encodings(c, 0, a, transposeA);
        encodings(c, 3, b, 1 - transposeB);
        encodings(c, -1, c.out(0), 1);
        ElementwiseRules.align(c, c.in(6), c.out(0));
    }

    /** x[batch, length, D] · W[D, q ⊕ k ⊕ v] and the attention on it; scale and zero point of W for each column. */
    private static void attention(RuleContext c) {
        long count = c.node().intAttribute("num_heads", 1);
        Dim[] x = c.in(0);
        Dim[] weight = c.in(1);
        Dim[] out = c.out(0);
        Dim heads = count == 1 ? Dim.ONE : c.fresh(count);
        Dim size = c.pinned(weight[1].size(0) / 3 / count, "the head size of a fused attention is fixed");
        Dim width = Dim.product(List.of(heads, size));
        c.unify(weight[1], Dim.sum(List.of(width, width, width)));
        c.unify(x[2], weight[0]);
        c.contraction(x[2], true);
        ElementwiseRules.align(c, c.in(2), weight);
        encodings(c, 1, weight, 1);
        for (Dim[] cache : new Dim[][] {c.in(8), c.out(1)}) {
            if (cache != null) {
                c.unifyBroadcast(cache[2], heads);
                c.unifyBroadcast(cache[4], size);
            }
        }
        c.unifyBroadcast(x[0], out[0]);
        c.unifyBroadcast(x[1], out[1]);
        c.unify(out[2], width);
        c.requireAttribute("num_heads", -1, heads);
        c.distribution(List.of(heads), Dim.ONE);
    }

    /**
     * x[batch, C, ..] with kernels W[M, C / group, ..]. With one group it sums over C; with a group for each channel it
     * keeps them apart. Other groups are not analysed.
     */
    private static void convolution(RuleContext c, int kernels) {
        Dim[] x = c.in(0);
        Dim[] w = c.in(kernels);
        Dim[] out = c.out(0);
        long group = c.node().intAttribute("group", 1);
        boolean apart = group > 1 && group == x[1].size(0) && group == w[0].size(0);
        if (group != 1 && !apart) {
            OperatorRules.pinEverything(c, "a grouped convolution is not analysed");
            return;
        }
        c.unifyBroadcast(x[0], out[0]);
        c.unifyBroadcast(w[0], out[1]);
        if (apart) {
            c.unifyBroadcast(x[1], out[1]);
            c.requireAttribute("group", -1, out[1]);
        } else {
            c.unifyBroadcast(x[1], w[1]);
            c.contraction(x[1], c.isWeight(kernels));
        }
        for (int axis = 2; axis < x.length; axis++) {
            c.pin(x[axis], "positions of a convolution");
            c.pin(out[axis], "positions of a convolution");
            c.pin(w[axis], "extent of a kernel");
        }
        encodings(c, kernels, w, 0);
        encodings(c, 0, x, -1);
        if (c.in(8) != null) {
            c.unifyBroadcast(c.in(8)[0], out[1]);
        }
    }

    /** Scales and zero points of element-wise operators are single numbers. */
    private static void elementwise(RuleContext c, int... operands) {
        for (int operand : operands) {
            ElementwiseRules.align(c, c.in(operand), c.out(0));
        }
    }
}
