// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import java.util.ArrayList;
import java.util.List;

/** Rules of operators that combine the positions of a sequence: convolutions, recurrences, running sums. */
final class ConvolutionRules {
    private ConvolutionRules() {}

    static void register(OperatorRules.Table table) {
        table.onnx(ConvolutionRules::convolution, "Conv");
        table.onnx(ConvolutionRules::recurrence, "RNN", "LSTM", "GRU");
        table.onnx(ConvolutionRules::runningSum, "CumSum");
    }

    /**
     * X[N, group × c, L..] with W[group × m, c, k..] and B[group × m] gives Y[N, group × m, L'..]. A depthwise
     * convolution has c and m of 1, so that a group is a channel, and the attribute {@code group} is their number.
     */
    private static void convolution(RuleContext c) {
        c.mixes();
        Dim[] in = c.in(0);
        Dim[] weight = c.in(1);
        Dim[] out = c.out(0);
        c.unifyBroadcast(in[0], out[0]);
        for (int axis = 2; axis < in.length; axis++) {
            if (in[axis].sameSize(out[axis])) {
                c.unifyBroadcast(in[axis], out[axis]);
            }
            c.pin(in[axis], "convolved along");
            c.pin(out[axis], "convolved along");
            c.pin(weight[axis], "taps of a convolution");
        }
        long count = c.node().intAttribute("group", 1);
        Dim inner = weight[1];
        if (count == 1) {
            c.unifyBroadcast(in[1], inner);
            c.unifyBroadcast(weight[0], out[1]);
        } else {
            Dim groups = c.fresh(count);
            c.requireAttribute("group", -1, groups);
            c.unify(in[1], product(groups, inner));
            c.unify(out[1], product(groups, outer(c, out[1].size(0) / count)));
            c.unify(weight[0], out[1]);
        }
        if (c.in(2) != null) {
            c.unify(c.in(2)[0], out[1]);
        }
        if (!inner.isOne()) {
            c.contraction(inner, c.isWeight(1));
        }
    }

    private static Dim outer(RuleContext c, long size) {
        return size == 1 ? Dim.ONE : c.fresh(size);
    }

    private static Dim product(Dim groups, Dim inner) {
        List<Dim> factors = new ArrayList<>(List.of(groups));
        if (!inner.isOne()) {
            factors.add(inner);
        }
        return Dim.product(factors);
    }

    /** The four or three gates of a recurrence lie in one axis, and its state is as wide as its result. */
    private static void recurrence(RuleContext c) {
        c.mixes();
        OperatorRules.pinEverything(c, "used by a recurrence");
    }

    /** Sums along one axis keep every other one apart. */
    private static void runningSum(RuleContext c) {
        if (c.isShapeArithmetic()) {
            return;
        }
        c.mixes();
        Dim[] in = c.in(0);
        long[] stated = c.constants(1);
        c.unifyAll(in, c.out(0));
        for (int axis = 0; axis < in.length; axis++) {
            if (stated == null || axis == RuleContext.axis(stated[0], in.length)) {
                c.pin(in[axis], "summed step by step");
            }
        }
    }
}
