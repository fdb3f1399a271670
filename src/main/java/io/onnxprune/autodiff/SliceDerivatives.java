// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import io.onnxprune.ir.Program.Value;

/** Derivatives of Slice and Pad: kept elements get the gradient, cut elements get zeros. */
final class SliceDerivatives {
    private SliceDerivatives() {}

    static void register(Derivatives.Table table) {
        table.add(SliceDerivatives::slice, "Slice");
        table.add(SliceDerivatives::pad, "Pad");
    }

    private static void slice(Derivation d) {
        BackwardGraph graph = d.graph();
        int rank = graph.rank(d.input(0));
        long[] axes = axes(d, 3, graph.extents(d.input(1)), rank);
        long[] steps = d.input(4) == null ? null : graph.integers(d.input(4));
        if (axes == null || d.input(4) != null && steps == null) {
            throw d.unsupported("its axes or steps are not constant");
        }
        if (axes.length == 1 && (steps == null || steps[0] == 1)) {
            long[] range = range(d, (int) axes[0]);
            if (range != null) {
                d.give(0, new Part(d.incomingFull(0), (int) axes[0], range[0], range[1], graph.extent(d.input(0), (int)
                        axes[0])));
                return;
            }
        }
        String g = d.incomingFull(0);
        for (int i = 0; i < axes.length; i++) {
            long step = steps == null ? 1 : steps[i];
            g = spread(d, g, i, (int) axes[i], step);
        }
        d.give(0, g);
    }

    /** The bounds of a slice on one axis when they are static, else null. */
    private static long[] range(Derivation d, int axis) {
        long extent = d.graph().extent(d.input(0), axis);
        long[] starts = d.graph().integers(d.input(1));
        long[] ends = d.graph().integers(d.input(2));
        if (extent < 0 || starts == null || ends == null) {
            return null;
        }
        long start = clamped(starts[0], extent);
        return new long[] {start, Math.max(start, clamped(ends[0], extent))};
    }

    private static long clamped(long index, long extent) {
        return Math.max(0, Math.min(index < 0 ? index + extent : index, extent));
    }

    /**
     * The axes of an optional operand, counted from the front; the first axes without the operand; null when they are
     * not constant.
     */
    private static long[] axes(Derivation d, int input, long[] listed, int rank) {
        if (d.input(input) != null) {
            long[] axes = d.graph().integers(d.input(input));
            if (axes != null) {
                axes = axes.clone();
                for (int i = 0; i < axes.length; i++) {
                    axes[i] = Derivation.axis(axes[i], rank);
                }
            }
            return axes;
        }
        long[] axes = new long[listed == null ? 0 : (int) listed[0]];
        for (int i = 0; i < axes.length; i++) {
            axes[i] = i;
        }
        return listed == null ? null : axes;
    }

    /**
     * Undoes a slice on one axis with run-time bounds. A negative step is a reversal. A step s is undone by s - 1
     * zeros after each element, of which the last may be cut off.
     */
    private static String spread(Derivation d, String gradient, int position, int axis, long step) {
        BackwardGraph graph = d.graph();
        int rank = graph.rank(d.input(0));
        String extent = graph.extentAtRun(d.input(0), axis);
        // The extent is not taken from the trace: a slice of a short axis may be shorter at another length.
        String kept = graph.add("Shape", BackwardGraph.range(axis, axis + 1L), gradient);
        String at = graph.ints(axis);
        String zero = graph.ints(0);
        String start = graph.add("Slice", d.input(1).name(), graph.ints(position), graph.ints(position + 1L));
        start = graph.cast(start, io.onnxprune.ir.DType.INT64);
        String wrapped = graph.add("Add", start, extent);
        start = graph.add("Where", graph.add("Less", start, zero), wrapped, start);
        String last = step > 0 ? extent : graph.add("Sub", extent, graph.ints(1));
        start = graph.add("Max", graph.add("Min", start, last), zero);
        String g = gradient;
        long stride = Math.abs(step);
        if (step < 0) {
            g = graph.add("Slice", g, graph.ints(-1), graph.ints(Long.MIN_VALUE), at, graph.ints(-1));
            // The first element in the operand's order is the end of the slice.
            String reach = graph.add("Mul", graph.add("Sub", kept, graph.ints(1)), graph.ints(stride));
            start = graph.add("Max", graph.add("Sub", start, reach), zero);
        }
        String length = kept;
        if (stride > 1) {
            String separated = graph.add("Unsqueeze", g, graph.ints(axis + 1L));
            String filled = graph.add(
                    "Pad", separated, graph.ints(0, stride - 1), graph.scalar(d.output(), 0), graph.ints(axis + 1L));
            length = graph.add("Mul", kept, graph.ints(stride));
            String outer = graph.add("Shape", BackwardGraph.range(0, axis), g);
            String inner = graph.add("Shape", BackwardGraph.range(axis + 1L, rank), g);
            g = graph.reshaped(filled, graph.add("Concat", BackwardGraph.integer("axis", 0), outer, length, inner));
        }
        String after = graph.add("Sub", graph.add("Sub", extent, start), length);
        String pads = graph.add("Concat", BackwardGraph.integer("axis", 0), start, after);
        return graph.add("Pad", g, pads, graph.scalar(d.output(), 0), at);
    }

    /** Padding is cut off, and elements that a negative pad cut off get zeros. */
    private static void pad(Derivation d) {
        if (!d.node().textAttribute("mode", "constant").equals("constant")) {
            throw d.unsupported("only padding with a constant has a derivative");
        }
        BackwardGraph graph = d.graph();
        String pads = graph.add("Neg", d.input(1).name());
        String zero = graph.scalar(d.output(), 0);
        Value axes = d.input(3);
        String g = d.incomingFull(0);
        d.give(0, axes == null ? graph.add("Pad", g, pads, zero) : graph.add("Pad", g, pads, zero, axes.name()));
    }
}
