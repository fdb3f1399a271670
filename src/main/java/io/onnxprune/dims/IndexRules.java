// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import java.util.ArrayList;
import java.util.List;

/** Rules of operators that select by index: slices, gathers, scatters and top-k. */
final class IndexRules {
    static final String LOOKED_UP = "looked up by index (a vocabulary or position table)";

    private IndexRules() {}

    /** Whether the pin is that of a look-up: indices select along this dimension, a vocabulary or a position table. */
    static boolean isLookedUp(Dim.Atom atom) {
        return atom.pin() != null && atom.pin().startsWith(LOOKED_UP);
    }

    static void register(OperatorRules.Table table) {
        table.onnx(IndexRules::slice, "Slice");
        table.onnx(IndexRules::gather, "Gather");
        table.onnx(IndexRules::gatherElements, "GatherElements");
        table.onnx(IndexRules::gatherNd, "GatherND");
        table.onnx(IndexRules::scatterElements, "ScatterElements", "Scatter");
        table.onnx(IndexRules::scatterNd, "ScatterND");
        table.onnx(IndexRules::topK, "TopK");
        table.onnx(c -> OperatorRules.pinEverything(c, "indices of non-zero elements"), "NonZero");
        table.onnx(IndexRules::oneHot, "OneHot");
    }

    private static void slice(RuleContext c) {
        Dim[] in = c.in(0);
        Dim[] out = c.out(0);
        if (out.length == 1 && c.isShapeArithmetic()) {
            return;
        }
        long[] axes = c.op().input(3) == null ? null : c.constants(3);
        Element[] starts = c.elements(1);
        boolean[] sliced = new boolean[in.length];
        int count = starts == null ? 0 : starts.length;
        for (int i = 0; i < count && (c.op().input(3) == null || axes != null); i++) {
            int axis = axes == null ? i : RuleContext.axis(axes[i], in.length);
            sliced[axis] = true;
            sliceAxis(c, axis, i);
        }
        for (int axis = 0; axis < in.length; axis++) {
            if (!sliced[axis] && in[axis].sameSize(out[axis])) {
                c.unifyBroadcast(in[axis], out[axis]);
            } else if (!sliced[axis]) {
                c.pin(in[axis], "sliced in a way that could not be analysed");
                c.pin(out[axis], "sliced in a way that could not be analysed");
            }
        }
    }

    private static void sliceAxis(RuleContext c, int axis, int position) {
        Dim in = c.in(0)[axis];
        Dim out = c.out(0)[axis];
        long[] steps = c.op().input(4) == null ? null : c.constants(4);
        long step = c.op().input(4) == null ? 1 : steps == null ? 0 : steps[position];
        if (step == 1 && in.sameSize(out)) {
            c.unifyBroadcast(in, out);
            return;
        }
        long[] start = c.contents(1, 0);
        long[] end = c.contents(2, 0);
        if (in.isDynamic()) {
            c.mixesAlong(in);
            c.pin(out, "a range of a varying length");
            return;
        }
        if (start == null || end == null || step <= 0 || out.isDynamic()) {
            c.pin(in, "sliced by varying bounds");
            c.pin(out, "sliced by varying bounds");
            return;
        }
        long size = in.size(0);
        long from = Math.min(size, start[position] < 0 ? Math.max(0, start[position] + size) : start[position]);
        if (step == 1 && out.isOne() && c.isChosen(in)) {
            c.selection(1, position, in, from);
            if (end[position] >= 0 && end[position] <= size) {
                c.requirePlace(2, position, in, from + 1);
            }
            return;
        }
        if (step > 1) {
            strided(c, in, out, from, step);
            return;
        }
        List<Dim> parts = c.cutInto(
                in,
                List.of(from, out.size(0), size - from - out.size(0)).stream()
                        .filter(extent -> extent > 0)
                        .toList());
        if (parts == null) {
            c.pin(out, "a range of an axis that cannot be cut there");
            return;
        }
        int kept = from > 0 ? 1 : 0;
        c.unifyBroadcast(parts.get(kept), out);
        Dim before = Dim.sum(parts.subList(0, kept));
        Dim upTo = Dim.sum(parts.subList(0, kept + 1));
        Dim after = Dim.sum(parts.subList(kept + 1, parts.size()));
        Dim onwards = Dim.sum(parts.subList(kept, parts.size()));
        if (start[position] < 0) {
            c.require(1, position, -1, onwards);
        } else if (start[position] > 0) {
            c.require(1, position, 1, before);
        }
        if (end[position] < 0) {
            c.require(2, position, -1, after);
        } else if (end[position] <= size) {
            c.require(2, position, 1, upTo);
        }
    }

    /** x[from::step] selects one index of each run of {@code step}: the outer factor of (n/step) × step. */
    private static void strided(RuleContext c, Dim in, Dim out, long from, long step) {
        if (in.size(0) % step != 0 || from >= step || out.size(0) != in.size(0) / step) {
            c.pin(in, "sliced with a step that does not divide it");
            c.pin(out, "sliced with a step that does not divide it");
            return;
        }
        c.unify(
                in,
                Dim.product(List.of(
                        out.isOne() ? Dim.ONE : out, c.pinned(step, "interleaved components of a strided slice"))));
    }

    private static void gather(RuleContext c) {
        Dim[] data = c.in(0);
        Dim[] out = c.out(0);
        if (c.isShapeArithmetic() && out.length <= 1) {
            return;
        }
        int axis = RuleContext.axis(c.node().intAttribute("axis", 0), data.length);
        Dim[] indices = c.in(1);
        for (int i = 0; i < axis; i++) {
            c.unifyBroadcast(data[i], out[i]);
        }
        for (int i = 0; i < indices.length; i++) {
            // A constant index vector is not unified with the result; its length is the result's extent and is handled
            // below.
            if (!c.isConstant(1)) {
                c.unifyBroadcast(indices[i], out[axis + i]);
            }
        }
        for (int i = axis + 1; i < data.length; i++) {
            c.unifyBroadcast(data[i], out[i - 1 + indices.length]);
        }
        if (data[axis].isDynamic()) {
            return;
        }
        if (c.target(1) != null) {
            c.unify(data[axis], c.target(1));
            return;
        }
        long[] constant = c.constants(1);
        if (constant == null || constant.length != 1) {
            c.pin(data[axis], LOOKED_UP);
            if (c.isConstant(1)) {
                c.pin(out, "selected by a list of indices");
            }
            return;
        }
        selectOne(c, data[axis], constant[0]);
    }

    /** Gather with one constant index is a slice of extent one. */
    private static void selectOne(RuleContext c, Dim dim, long index) {
        long size = dim.size(0);
        if (size == 1) {
            return;
        }
        long position = index < 0 ? index + size : index;
        if (c.isChosen(dim)) {
            c.selection(1, 0, dim, position);
            return;
        }
        if (c.isConstant(0) && c.in(0).length > 1 && dim.resolve() instanceof Dim.Atom) {
            c.piece(dim, position);
            return;
        }
        List<Long> extents = new ArrayList<>(List.of(position, 1L, size - position - 1));
        extents.removeIf(extent -> extent <= 0);
        List<Dim> parts = c.cutInto(dim, extents);
        if (parts == null) {
            return;
        }
        int kept = position > 0 ? 1 : 0;
        c.pin(parts.get(kept), "selected by a constant index");
        if (index < 0) {
            c.require(1, 0, -1, Dim.sum(parts.subList(kept, parts.size())));
        } else if (index > 0) {
            c.require(1, 0, 1, Dim.sum(parts.subList(0, kept)));
        }
    }

    private static void gatherElements(RuleContext c) {
        Dim[] data = c.in(0);
        Dim[] indices = c.in(1);
        int axis = RuleContext.axis(c.node().intAttribute("axis", 0), data.length);
        for (int i = 0; i < data.length; i++) {
            c.unifyBroadcast(indices[i], c.out(0)[i]);
            if (i == axis) {
                indexed(c, data[i], LOOKED_UP);
            } else if (data[i].sameSize(indices[i])) {
                c.unifyBroadcast(data[i], indices[i]);
            } else {
                c.pin(data[i], "gathered in part");
                c.pin(indices[i], "gathered in part");
            }
        }
    }

    private static void gatherNd(RuleContext c) {
        Dim[] data = c.in(0);
        Dim[] indices = c.in(1);
        Dim[] out = c.out(0);
        int depth = Math.toIntExact(indices[indices.length - 1].size(0));
        int batch = (int) c.node().intAttribute("batch_dims", 0);
        long[] constant = c.constants(1);
        for (int i = batch; i < batch + depth; i++) {
            Dim target = depth == 1 ? c.target(1) : c.component(1, i - batch);
            if (target != null) {
                c.unify(data[i], target);
            } else if (constant != null && constant.length == 1 && !data[i].isDynamic()) {
                selectOne(c, data[i], constant[0]);
            } else {
                c.pin(data[i], LOOKED_UP);
            }
        }
        c.pin(indices[indices.length - 1], "components of an index");
        for (int i = 0; i < indices.length - 1; i++) {
            c.unifyBroadcast(indices[i], out[i]);
        }
        for (int i = 0; i < batch; i++) {
            c.unifyBroadcast(data[i], out[i]);
        }
        for (int i = batch + depth; i < data.length; i++) {
            c.unifyBroadcast(data[i], out[indices.length - 1 + i - batch - depth]);
        }
    }

    private static void scatterElements(RuleContext c) {
        Dim[] data = c.in(0);
        Dim[] indices = c.in(1);
        int axis = RuleContext.axis(c.node().intAttribute("axis", 0), data.length);
        c.unifyAll(data, c.out(0));
        c.unifyAll(indices, c.in(2));
        for (int i = 0; i < data.length; i++) {
            if (i == axis) {
                indexed(c, data[i], "written by index");
            } else if (data[i].sameSize(indices[i])) {
                c.unifyBroadcast(data[i], indices[i]);
            } else {
                c.pin(data[i], "written in part");
                c.pin(indices[i], "written in part");
            }
        }
    }

    private static void scatterNd(RuleContext c) {
        Dim[] data = c.in(0);
        Dim[] indices = c.in(1);
        Dim[] updates = c.in(2);
        c.unifyAll(data, c.out(0));
        int depth = Math.toIntExact(indices[indices.length - 1].size(0));
        c.pin(indices[indices.length - 1], "components of an index");
        for (int i = 0; i < depth; i++) {
            if (depth > 1 && c.component(1, i) != null) {
                c.unify(data[i], c.component(1, i));
            } else if (depth == 1) {
                indexed(c, data[i], "written by index");
            } else {
                c.pin(data[i], "written by index");
            }
        }
        for (int i = 0; i < indices.length - 1; i++) {
            c.unifyBroadcast(indices[i], updates[i]);
        }
        for (int i = depth; i < data.length; i++) {
            c.unifyBroadcast(data[i], updates[indices.length - 1 + i - depth]);
        }
    }

    /** An axis that operand 1 selects from: the one that its values are indices of, or else a table. */
    private static void indexed(RuleContext c, Dim axis, String otherwise) {
        if (c.target(1) != null) {
            c.unify(axis, c.target(1));
        } else {
            c.pin(axis, otherwise);
        }
    }

    /** The results are indices of the ranked axis, which keeps at least as many as are selected. */
    private static void topK(RuleContext c) {
        Dim[] in = c.in(0);
        int axis = RuleContext.axis(c.node().intAttribute("axis", -1), in.length);
        long[] k = c.op().inputs().size() > 1
                ? c.constants(1)
                : new long[] {c.node().intAttribute("k", 0)};
        if (in[axis].isDynamic() || k == null || k[0] < 1) {
            c.pin(in[axis], "ranked by top-k of a varying number");
        } else {
            c.choice(0, axis, c.node().intAttribute("largest", 1) != 0, k[0]);
            c.pointsTo(1, in[axis]);
        }
        for (int output = 0; output < 2; output++) {
            Dim[] out = c.out(output);
            for (int i = 0; out != null && i < in.length; i++) {
                if (i == axis) {
                    c.pin(out[i], "the ranks of a top-k");
                } else {
                    c.unifyBroadcast(in[i], out[i]);
                }
            }
        }
    }

    private static void oneHot(RuleContext c) {
        Dim[] in = c.in(0);
        Dim[] out = c.out(0);
        int axis = RuleContext.axis(c.node().intAttribute("axis", -1), out.length);
        for (int i = 0; i < out.length; i++) {
            if (i == axis && c.target(0) != null) {
                c.unify(out[i], c.target(0));
                c.require(1, 0, 1, out[i]);
            } else if (i == axis) {
                c.pin(out[i], "one index of a one-hot code");
            } else {
                c.unifyBroadcast(in[i < axis ? i : i - 1], out[i]);
            }
        }
    }
}
