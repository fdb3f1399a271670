// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** Rules of matrix products and reductions. */
final class ContractionRules {
    private ContractionRules() {}

    static void register(OperatorRules.Table table) {
        table.onnx(c -> matMul(c, 0, 1, false, false), "MatMul");
        table.contrib(
                c -> matMul(
                        c,
                        0,
                        1,
                        c.node().intAttribute("transA", 0) != 0,
                        c.node().intAttribute("transB", 0) != 0),
                "FusedMatMul");
        table.onnx(ContractionRules::gemm, "Gemm");
        table.onnx(ContractionRules::einsum, "Einsum");
        table.onnx(ContractionRules::sum, "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2");
        table.onnx(ContractionRules::mean, "ReduceMean");
        table.onnx(ContractionRules::order, "ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSum", "ReduceLogSumExp");
        table.onnx(ContractionRules::order, "ArgMax", "ArgMin");
    }

    /**
     * A[.., M, K] · B[.., K, N] with broadcast batch axes; the axis that NumPy's matmul adds to a vector is dropped.
     *
     * @param left input of A
     * @param right input of B
     */
    static void matMul(RuleContext c, int left, int right, boolean transposeA, boolean transposeB) {
        List<Dim> a = new ArrayList<>(Arrays.asList(c.in(left)));
        List<Dim> b = new ArrayList<>(Arrays.asList(c.in(right)));
        List<Dim> out = new ArrayList<>(Arrays.asList(c.out(0)));
        if (transposeA) {
            java.util.Collections.swap(a, a.size() - 1, a.size() - 2);
        }
        if (transposeB) {
            java.util.Collections.swap(b, b.size() - 1, b.size() - 2);
        }
        Dim inner = a.remove(a.size() - 1);
        c.unifyBroadcast(inner, b.remove(Math.max(0, b.size() - 2)));
        c.contraction(inner, c.isWeight(left) || c.isWeight(right));
        if (!b.isEmpty()) {
            c.unifyBroadcast(b.remove(b.size() - 1), out.remove(out.size() - 1));
        }
        if (!a.isEmpty()) {
            c.unifyBroadcast(a.remove(a.size() - 1), out.remove(out.size() - 1));
        }
        Dim[] batch = out.toArray(new Dim[0]);
        ElementwiseRules.align(c, a.toArray(new Dim[0]), batch);
        ElementwiseRules.align(c, b.toArray(new Dim[0]), batch);
    }

    private static void gemm(RuleContext c) {
        int transposeA = (int) c.node().intAttribute("transA", 0);
        int transposeB = (int) c.node().intAttribute("transB", 0);
        Dim[] a = c.in(0);
        Dim[] b = c.in(1);
        c.unifyBroadcast(a[1 - transposeA], b[transposeB]);
        c.contraction(a[1 - transposeA], c.isWeight(0) || c.isWeight(1));
        c.unifyBroadcast(a[transposeA], c.out(0)[0]);
        c.unifyBroadcast(b[1 - transposeB], c.out(0)[1]);
        ElementwiseRules.align(c, c.in(2), c.out(0));
    }

    /** Equal letters are equal dimensions. Equations with an ellipsis are not analysed. */
    private static void einsum(RuleContext c) {
        String equation = c.node().textAttribute("equation", "").replace(" ", "");
        String[] sides = equation.split("->", -1);
        String[] terms = sides[0].split(",", -1);
        if (sides.length != 2
                || equation.contains(".")
                || terms.length != c.op().inputs().size()) {
            OperatorRules.pinEverything(c, "einsum " + equation + " is not analysed");
            return;
        }
        Map<Character, Dim> letters = new HashMap<>();
        for (int term = 0; term <= terms.length; term++) {
            String text = term < terms.length ? terms[term] : sides[1];
            Dim[] dims = term < terms.length ? c.in(term) : c.out(0);
            for (int i = 0; i < dims.length; i++) {
                Dim known = letters.putIfAbsent(text.charAt(i), dims[i]);
                if (known != null) {
                    c.unifyBroadcast(known, dims[i]);
                }
            }
        }
        letters.forEach((letter, dim) -> {
            if (sides[1].indexOf(letter) < 0) {
                c.contraction(dim, c.isWeight(0) || terms.length > 1 && c.isWeight(1));
            }
        });
    }

    private static void sum(RuleContext c) {
        c.total(0, reduced(c));
    }

    private static void mean(RuleContext c) {
        List<Integer> axes = reduced(c);
        if (!axes.isEmpty()) {
            c.mean(0, axes);
        }
    }

    private static void order(RuleContext c) {
        if (c.elements(0) != null) {
            return;
        }
        boolean selects = c.node().op().startsWith("Arg");
        for (int axis : reduced(c)) {
            if (selects && !c.in(0)[axis].isDynamic()) {
                c.choice(0, axis, c.node().is("ArgMax"), 1);
                c.pointsTo(0, c.in(0)[axis]);
            } else if (c.node().is("ReduceMax") && !c.in(0)[axis].isDynamic()) {
                c.choice(0, axis, true, 0);
            } else {
                c.pin(c.in(0)[axis], "reduced by " + c.node().op());
            }
        }
    }

    /** Unifies the axes that are kept and returns the reduced ones. */
    private static List<Integer> reduced(RuleContext c) {
        Dim[] in = c.in(0);
        Dim[] out = c.out(0);
        boolean keep = c.node().intAttribute("keepdims", 1) != 0;
        boolean[] isReduced = new boolean[in.length];
        List<Long> listed = axes(c);
        if (listed == null) {
            c.pin(in, "reduced over varying axes");
            c.pin(out, "reduced over varying axes");
            return List.of();
        }
        if (listed.isEmpty() && c.node().intAttribute("noop_with_empty_axes", 0) == 0) {
            Arrays.fill(isReduced, true);
        }
        listed.forEach(axis -> isReduced[RuleContext.axis(axis, in.length)] = true);
        List<Integer> result = new ArrayList<>();
        int position = 0;
        for (int axis = 0; axis < in.length; axis++) {
            if (isReduced[axis]) {
                result.add(axis);
                position += keep ? 1 : 0;
            } else {
                c.unifyBroadcast(in[axis], out[position++]);
            }
        }
        return result;
    }

    /** The axes from the attribute or the input; empty when none are given, null when they vary. */
    private static List<Long> axes(RuleContext c) {
        if (c.node().op().startsWith("Arg")) {
            return List.of(c.node().intAttribute("axis", 0));
        }
        if (c.node().intsAttribute("axes") != null) {
            return c.node().intsAttribute("axes");
        }
        if (c.op().input(1) == null) {
            return List.of();
        }
        long[] constant = c.constants(1);
        return constant == null ? null : Arrays.stream(constant).boxed().toList();
    }
}
