// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.stream.IntStream;

/** Rules of operators that move elements without computing: reshape, transpose, concatenation, split, repetition. */
final class LayoutRules {
    /** Replaces an extent of zero when sizes are multiplied: larger than any real extent, and prime. */
    private static final long EMPTY = 1_000_003;

    private LayoutRules() {}

    static void register(OperatorRules.Table table) {
        table.onnx(LayoutRules::reshape, "Reshape");
        table.onnx(c -> regroup(c, c.in(0), c.out(0)), "Flatten", "Squeeze", "Unsqueeze");
        table.onnx(LayoutRules::transpose, "Transpose");
        table.onnx(LayoutRules::expand, "Expand");
        table.onnx(LayoutRules::tile, "Tile");
        table.onnx(LayoutRules::concat, "Concat");
        table.onnx(LayoutRules::split, "Split");
        table.onnx(LayoutRules::pad, "Pad");
        table.onnx(LayoutRules::constantOfShape, "ConstantOfShape");
        table.onnx(c -> c.pin(c.out(0), "produced by a Range"), "Range");
        table.onnx(c -> {}, "Shape", "Size");
        table.onnx(LayoutRules::branch, "If");
        table.onnx(LayoutRules::loop, "Loop", "Scan");
    }

    private static void loop(RuleContext c) {
        OperatorRules.pinEverything(c, "used by a loop");
        c.unknown();
    }

    private static void branch(RuleContext c) {
        for (int i = 0; i < c.op().outputs().size(); i++) {
            for (Dim[] yield : c.branchOutputs(i)) {
                if (yield != null && c.out(i) != null && yield.length == c.out(i).length) {
                    c.unifyAll(yield, c.out(i));
                } else {
                    c.pin(yield, "the branches of an If differ in rank");
                    c.pin(c.out(i), "the branches of an If differ in rank");
                }
            }
        }
    }

    private static void reshape(RuleContext c) {
        if (c.elements(0) != null && c.in(0).length <= 1 && c.out(0).length <= 1) {
            return;
        }
        regroup(c, c.in(0), c.out(0));
        Dim[] out = c.out(0);
        Element[] target = c.elements(1);
        if (target == null || target.length != out.length) {
            c.pin(out, "reshaped to a shape that could not be analysed");
            return;
        }
        for (int axis = 0; axis < target.length; axis++) {
            if (target[axis].value(0, Dim.Keep.ALL) > 0) {
                c.require(1, axis, 1, out[axis]);
            }
        }
    }

    /**
     * Relates two shapes of the same elements: runs of axes with equal numbers of elements are equal products of
     * dimensions.
     */
    static void regroup(RuleContext c, Dim[] in, Dim[] out) {
        List<Dim> left = withoutOnes(in);
        List<Dim> right = withoutOnes(out);
        int i = 0;
        int j = 0;
        while (i < left.size() && j < right.size()) {
            int fromI = i;
            int fromJ = j;
            long[] a = extents(left.get(i++));
            long[] b = extents(right.get(j++));
            while (!Arrays.equals(a, b)) {
                boolean extendLeft = a[0] != b[0] ? a[0] < b[0] : a[1] < b[1];
                if (extendLeft && i < left.size()) {
                    multiply(a, extents(left.get(i++)));
                } else if (!extendLeft && j < right.size()) {
                    multiply(b, extents(right.get(j++)));
                } else {
                    c.pin(in, "reshaped in a way that could not be analysed");
                    c.pin(out, "reshaped in a way that could not be analysed");
                    return;
                }
            }
            c.unify(Dim.product(left.subList(fromI, i)), Dim.product(right.subList(fromJ, j)));
        }
    }

    private static List<Dim> withoutOnes(Dim[] dims) {
        return Arrays.stream(dims).filter(dim -> !dim.isOne()).toList();
    }

    private static long[] extents(Dim dim) {
        return new long[] {dim.size(0) == 0 ? EMPTY : dim.size(0), dim.size(1) == 0 ? EMPTY : dim.size(1)};
    }

    private static void multiply(long[] product, long[] factor) {
        product[0] *= factor[0];
        product[1] *= factor[1];
    }

    private static void transpose(RuleContext c) {
        Dim[] in = c.in(0);
        List<Long> permutation = c.node().intsAttribute("perm");
        for (int axis = 0; axis < in.length; axis++) {
            int source = permutation == null
                    ? in.length - 1 - axis
                    : permutation.get(axis).intValue();
            c.unifyBroadcast(in[source], c.out(0)[axis]);
        }
    }

    private static void expand(RuleContext c) {
        ElementwiseRules.align(c, c.in(0), c.out(0));
        Dim[] out = c.out(0);
        Element[] target = c.elements(1);
        if (target == null) {
            c.pin(out, "expanded to a shape that could not be analysed");
            return;
        }
        for (int i = 0; i < target.length; i++) {
            int axis = i + out.length - target.length;
            if (target[i].value(0, Dim.Keep.ALL) > 1) {
                c.require(1, i, 1, out[axis]);
            }
        }
    }

    /** Tile repeats complete axes, so the number of copies is the outer factor. */
    private static void tile(RuleContext c) {
        Dim[] in = c.in(0);
        Dim[] out = c.out(0);
        Element[] repeats = c.elements(1);
        for (int axis = 0; axis < in.length; axis++) {
            if (in[axis].isOne()) {
                if (repeats != null && !out[axis].isOne()) {
                    c.require(1, axis, 1, out[axis]);
                }
            } else if (in[axis].sameSize(out[axis])) {
                c.unify(in[axis], out[axis]);
            } else if (repeats == null || !isRepeated(in[axis], out[axis])) {
                c.pin(in[axis], "tiled a varying number of times");
                c.pin(out[axis], "tiled a varying number of times");
            } else {
                Dim copies = c.fresh(out[axis].size(0) / in[axis].size(0));
                c.unify(Dim.product(List.of(copies, in[axis])), out[axis]);
                c.require(1, axis, 1, copies);
            }
        }
    }

    /** Whether a length, which may vary, is repeated the same number of times in both traced runs. */
    private static boolean isRepeated(Dim in, Dim out) {
        boolean full = in.size(0) > 0 && in.size(1) > 0;
        return full
                && out.size(0) % in.size(0) == 0
                && out.size(1) % in.size(1) == 0
                && out.size(0) / in.size(0) == out.size(1) / in.size(1);
    }

    private static void concat(RuleContext c) {
        Dim[] out = c.out(0);
        int axis = RuleContext.axis(c.node().intAttribute("axis", 0), out.length);
        if (out.length == 1 && c.isShapeArithmetic()) {
            return;
        }
        List<Dim> parts = new ArrayList<>();
        boolean dynamic = out[axis].isDynamic();
        boolean single = true;
        for (int i = 0; i < c.op().inputs().size(); i++) {
            Dim[] in = c.in(i);
            for (int other = 0; other < out.length; other++) {
                if (other != axis) {
                    c.unifyBroadcast(in[other], out[other]);
                }
            }
            // An axis of extent one is a part too, but it has no atom, so it gets a pinned one.
            parts.add(in[axis].isOne() ? c.pinned(1, "single index of a concatenation") : in[axis]);
            dynamic |= in[axis].isDynamic();
            single &= in[axis].isOne();
        }
        if (single && !dynamic && parts.size() > 1) {
            c.parts(out[axis]);
        } else if (parts.size() == 1) {
            c.unifyBroadcast(parts.get(0), out[axis]);
        } else if (dynamic) {
            parts.stream().filter(part -> !part.isDynamic()).forEach(part -> c.pin(part, "joined to a varying length"));
            c.pin(out[axis], "joined to a varying length");
            if (c.hasFixedLength()) {
                // No extent differs between runs then, and what is joined to positions is positions too.
                parts.forEach(LayoutRules::markDynamic);
                markDynamic(out[axis]);
            }
        } else if (!out[axis].isOne()) {
            c.unify(Dim.sum(parts), out[axis]);
        }
    }

    private static void markDynamic(Dim dim) {
        dim.atoms().forEach(Dim.Atom::markDynamic);
    }

    private static void split(RuleContext c) {
        Dim[] in = c.in(0);
        int axis = RuleContext.axis(c.node().intAttribute("axis", 0), in.length);
        List<Dim> parts = new ArrayList<>();
        for (int i = 0; i < c.op().outputs().size(); i++) {
            Dim[] out = c.out(i);
            if (out == null) {
                c.pin(in[axis], "split with an unused part");
                return;
            }
            for (int other = 0; other < in.length; other++) {
                if (other != axis) {
                    c.unifyBroadcast(in[other], out[other]);
                }
            }
            parts.add(out[axis].isOne() ? c.pinned(1, "single index of a split") : out[axis]);
        }
        if (in[axis].isDynamic()) {
            parts.forEach(part -> c.pin(part, "part of a varying length"));
            return;
        }
        boolean single = parts.size() == in[axis].size(0);
        boolean stack = single && c.isConstant(0) && in.length > 1 && in[axis].resolve() instanceof Dim.Atom;
        if (single && c.isChosen(in[axis]) || stack) {
            c.selections(in[axis], !stack);
            return;
        }
        if (c.isChosen(in[axis])) {
            c.pin(in[axis], "chosen among, and split into parts");
            return;
        }
        c.unify(in[axis], Dim.sum(parts));
        for (int i = 0; i < parts.size(); i++) {
            if (c.elements(1) != null) {
                c.require(1, i, 1, parts.get(i));
            } else if (c.node().intsAttribute("split") != null) {
                c.requireAttribute("split", i, parts.get(i));
            } else {
                c.equalSplit(parts);
                return;
            }
        }
    }

    private static void pad(RuleContext c) {
        Dim[] in = c.in(0);
        Dim[] out = c.out(0);
        IntStream.range(0, in.length).forEach(axis -> {
            if (in[axis].sameSize(out[axis])) {
                c.unifyBroadcast(in[axis], out[axis]);
            } else {
                c.mixesAlong(in[axis]);
                c.pin(in[axis], "padded");
                c.pin(out[axis], "padded");
            }
        });
    }

    private static void constantOfShape(RuleContext c) {
        Dim[] out = c.out(0);
        Element[] shape = c.elements(0);
        for (int axis = 0; axis < out.length; axis++) {
            if (shape == null) {
                c.pin(out[axis], "produced with a shape that could not be analysed");
            } else if (!out[axis].isOne()) {
                c.require(0, axis, 1, out[axis]);
            }
        }
    }
}
