// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.ir.Tensor;
import java.util.Arrays;
import java.util.List;
import java.util.Set;

/**
 * Rules of fused mixtures of experts (MoE and QMoE of ONNX Runtime's contrib operators). All experts of a node have one
 * set of FFN channels. Numbers of less than a byte are packed along the last axis.
 */
final class ExpertRules {
    /** Inputs of the matrices, scales, biases and zero points of fc1, fc2 and fc3; -1 where an operator has none. */
    private record Layout(
            boolean quantised,
            List<Integer> weights,
            List<Integer> scales,
            List<Integer> biases,
            List<Integer> zeros) {}

    private static final Layout PLAIN =
            new Layout(false, List.of(2, 4, 6), List.of(-1, -1, -1), List.of(3, 5, 7), List.of(-1, -1, -1));
    private static final Layout QUANTISED =
            new Layout(true, List.of(2, 5, 8), List.of(3, 6, 9), List.of(4, 7, 10), List.of(11, 12, 13));
    /** Inputs of QMoE that these rules cover: all but those of formats other than integers. */
    private static final int COVERED = 15;

    private static final Set<String> GATED = Set.of("swiglu");

    private ExpertRules() {}

    static void register(OperatorRules.Table table) {
        table.contrib(c -> new Fused(c, PLAIN).apply(), "MoE");
        table.contrib(ExpertRules::quantised, "QMoE");
    }

    private static void quantised(RuleContext c) {
        boolean integers = c.node().textAttribute("quant_type", "int").equals("int");
        boolean others = c.op().inputs().stream().skip(COVERED).anyMatch(value -> value != null);
        if (!integers || others) {
            OperatorRules.pinEverything(c, "experts that are not quantised to integers");
        } else if (c.node().intAttribute("weights_prepacked", -1) == 1) {
            OperatorRules.pinEverything(c, "experts in the layout of an execution provider");
        } else {
            new Fused(c, QUANTISED).apply();
        }
    }

    /**
     * x[.., H], router[T, E] -> y[.., H] with fc1[E, R, H], fc2[E, H, F] and fc3[E, F, H], where R is F, (F, 2) for an
     * interleaved gate, or F ⊕ F for a gate beside it.
     */
    private static final class Fused {
        private final RuleContext c;
        private final Layout layout;
        private final long block;

        Fused(RuleContext c, Layout layout) {
            this.c = c;
            this.layout = layout;
            this.block = layout.quantised ? c.node().intAttribute("block_size", 0) : 0;
        }

        void apply() {
            Dim[] x = c.in(0);
            Dim[] router = c.in(1);
            Dim[] down = c.in(layout.weights.get(1));
            Dim hidden = x[x.length - 1];
            long perElement = perElement(1);
            Dim channels = c.fresh(down[2].size(0) * perElement);
            boolean gated = c.node().intAttribute("swiglu_fusion", 0) != 0
                    && GATED.contains(c.node().textAttribute("activation_type", "relu"));
            long rows = c.in(layout.weights.get(0))[1].size(0);
            if (down[1].size(0) != hidden.size(0) || rows != channels.size(0) * (gated ? 2 : 1)) {
                OperatorRules.pinEverything(c, "weights of experts in an order that is not analysed");
                return;
            }
            c.unifyAll(x, c.out(0));
            c.unify(Dim.product(Arrays.asList(x).subList(0, x.length - 1)), router[0]);
            c.choice(1, 1, true, c.node().intAttribute("k", 1));
            if (c.in(14) != null && layout.quantised) {
                c.unifyAll(c.in(14), router);
            }
            c.contraction(hidden, true);
            c.contraction(channels, true);
            matrix(0, router[1], rows(channels, gated), hidden);
            matrix(1, router[1], hidden, channels);
            if (c.in(layout.weights.get(2)) != null) {
                matrix(2, router[1], channels, hidden);
            }
        }

        private int perElement(int matrix) {
            Tensor weights = c.op().input(layout.weights.get(matrix)).constant();
            return !layout.quantised || weights == null ? 1 : QuantizedOperands.perElement(c.node(), weights);
        }

        private Dim rows(Dim channels, boolean gated) {
            if (!gated) {
                return channels;
            }
            return c.node().intAttribute("swiglu_fusion", 0) == 1
                    ? Dim.product(List.of(channels, c.pinned(2, "a channel and its gate")))
                    : Dim.sum(List.of(channels, channels));
        }

        /** One matrix [E, rows, columns] with its scales, zero points and bias. */
        private void matrix(int index, Dim experts, Dim rows, Dim columns) {
            Dim[] weights = c.in(layout.weights.get(index));
            c.unifyBroadcast(weights[0], experts);
            c.unify(weights[1], rows);
            Dim[] scales = layout.scales.get(index) < 0 ? null : c.in(layout.scales.get(index));
            Dim blocks = null;
            int each = perElement(index);
            if (scales != null && scales.length == 3 && block > 0) {
                blocks = scales[2];
                c.unify(columns, QuantizationRules.blocks(c, blocks, columns.size(0), block));
                c.unify(weights[2], QuantizationRules.blocks(c, blocks, weights[2].size(0), block / each));
            } else {
                c.unify(columns, packed(weights[2], each));
            }
            encoding(scales, experts, rows, blocks);
            zeros(layout.zeros.get(index) < 0 ? null : c.in(layout.zeros.get(index)), experts, rows, blocks);
            Dim[] bias = c.in(layout.biases.get(index));
            encoding(bias, experts, rows, null);
        }

        private Dim packed(Dim bytes, int each) {
            return each == 1 ? bytes : Dim.product(List.of(bytes, c.pinned(each, "numbers packed into one byte")));
        }

        private void encoding(Dim[] dims, Dim experts, Dim rows, Dim blocks) {
            if (dims != null) {
                c.unifyBroadcast(dims[0], experts);
                c.unify(dims[1], rows);
                if (dims.length == 3) {
                    c.unify(dims[2], blocks == null ? Dim.ONE : blocks);
                }
            }
        }

        /** Zero points are packed along their last axis: that of the rows, or that of the blocks. */
        private void zeros(Dim[] dims, Dim experts, Dim rows, Dim blocks) {
            if (dims == null) {
                return;
            }
            c.unifyBroadcast(dims[0], experts);
            int last = dims.length - 1;
            Dim along = last == 1 ? rows : blocks == null ? Dim.ONE : blocks;
            if (last == 2) {
                c.unify(dims[1], rows);
            }
            Dim bytes = dims[last];
            if (bytes.sameSize(along)) {
                c.unify(bytes, along);
            } else if (along.size(0) % bytes.size(0) == 0) {
                c.unify(along, packed(bytes, Math.toIntExact(along.size(0) / bytes.size(0))));
            } else {
                c.pin(along, "zero points of several blocks packed into one byte");
                c.pin(bytes, "zero points of several blocks packed into one byte");
            }
        }
    }
}
