// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import io.onnxprune.ir.Attribute;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.LongStream;

/**
 * The derivative of Conv with any number of spatial axes, strides, dilations and groups. The operand's gradient is the
 * transposed convolution. The weight's gradient is, for each tap, a product of the result's gradient with the elements
 * that the tap reads.
 */
final class ConvolutionDerivatives {
    private final Derivation d;
    private final BackwardGraph graph;
    private final int axes;
    private final long[] kernel;
    private final List<Long> strides;
    private final List<Long> dilations;
    private final List<Long> pads;
    private final long groups;

    private ConvolutionDerivatives(Derivation d, long[] kernel) {
        this.d = d;
        this.graph = d.graph();
        this.axes = kernel.length - 2;
        this.kernel = kernel;
        this.strides = listed("strides", Collections.nCopies(axes, 1L));
        this.dilations = listed("dilations", Collections.nCopies(axes, 1L));
        this.pads = pads();
        this.groups = d.node().intAttribute("group", 1);
    }

    static void register(Derivatives.Table table) {
        table.add(ConvolutionDerivatives::convolution, "Conv");
    }

    private static void convolution(Derivation d) {
        long[] kernel = d.graph().extents(d.input(1));
        if (kernel == null) {
            throw d.unsupported("the shape of its weight varies");
        }
        new ConvolutionDerivatives(d, kernel).give();
    }

    private void give() {
        String g = d.incomingFull(0);
        if (d.wants(0)) {
            d.give(0, transposed(g));
        }
        if (d.wants(1)) {
            d.give(1, ofWeight(g));
        }
        if (d.wants(2)) {
            long[] summed =
                    LongStream.range(0, axes + 2L).filter(axis -> axis != 1).toArray();
            d.give(2, graph.add("ReduceSum", BackwardGraph.integer("keepdims", 0), g, graph.ints(summed)));
        }
    }

    private List<Long> listed(String key, List<Long> otherwise) {
        List<Long> stated = d.node().intsAttribute(key);
        return stated == null ? otherwise : stated;
    }

    /** The padding before each spatial axis, then the padding after each. */
    private List<Long> pads() {
        String mode = d.node().textAttribute("auto_pad", "NOTSET");
        if (!mode.startsWith("SAME")) {
            List<Long> none = Collections.nCopies(2 * axes, 0L);
            return mode.equals("VALID") ? none : listed("pads", none);
        }
        if (strides.stream().anyMatch(stride -> stride != 1)) {
            throw d.unsupported("with strides, only stated padding has a derivative");
        }
        List<Long> before = new ArrayList<>();
        List<Long> after = new ArrayList<>();
        for (int axis = 0; axis < axes; axis++) {
            long total = dilations.get(axis) * (kernel[axis + 2] - 1);
            long less = total / 2;
            before.add(mode.equals("SAME_UPPER") ? less : total - less);
            after.add(mode.equals("SAME_UPPER") ? total - less : less);
        }
        before.addAll(after);
        return before;
    }

    private String transposed(String g) {
        Map<String, Attribute> attributes = new LinkedHashMap<>();
        attributes.put("strides", new Attribute.Ints(strides));
        attributes.put("dilations", new Attribute.Ints(dilations));
        attributes.put("group", new Attribute.Int(groups));
        boolean whole = strides.stream().allMatch(stride -> stride == 1);
        attributes.put("pads", new Attribute.Ints(whole ? pads : Collections.nCopies(2 * axes, 0L)));
        String result = graph.add("ConvTranspose", attributes, g, d.in(1));
        return whole ? result : fitted(result);
    }

    /** Strides leave elements at the end unread. They get zeros, and padding is cut off. */
    private String fitted(String result) {
        long[] spatial = LongStream.range(2, axes + 2L).toArray();
        String present = graph.add("Shape", BackwardGraph.range(2, axes + 2L), result);
        String wanted =
                graph.add("Shape", BackwardGraph.range(2, axes + 2L), d.input(0).name());
        String before =
                graph.ints(pads.subList(0, axes).stream().map(pad -> -pad).toList());
        String after = graph.add("Sub", graph.add("Sub", wanted, present), before);
        String amounts = graph.add("Concat", BackwardGraph.integer("axis", 0), before, after);
        return graph.add("Pad", result, amounts, graph.scalar(d.output(), 0), graph.ints(spatial));
    }

    private String ofWeight(String g) {
        long[] spatial = LongStream.range(2, axes + 2L).toArray();
        String padded = pads.stream().allMatch(pad -> pad == 0)
                ? d.in(0)
                : graph.add("Pad", d.in(0), graph.ints(pads), graph.scalar(d.output(), 0), graph.ints(spatial));
        // The last element that a tap reads is (L' - 1) strides behind its first one.
        String one = graph.ints(Collections.nCopies(axes, 1L));
        String results = graph.add("Shape", BackwardGraph.range(2, axes + 2L), g);
        String reach = graph.add("Mul", graph.add("Sub", results, one), graph.ints(strides));
        String behind = graph.add("Add", reach, one);
        List<String> taps = new ArrayList<>();
        long count = LongStream.of(kernel).skip(2).reduce(1, Math::multiplyExact);
        for (long tap = 0; tap < count; tap++) {
            List<Long> starts = starts(tap);
            String first = graph.ints(starts);
            String last = graph.add("Add", first, behind);
            String read = graph.add("Slice", padded, first, last, graph.ints(spatial), graph.ints(strides));
            taps.add(ofTap(g, read));
        }
        String joined = taps.size() == 1
                ? taps.get(0)
                : graph.add("Concat", BackwardGraph.integer("axis", -1), taps.toArray(String[]::new));
        return graph.reshaped(joined, graph.ints(kernel));
    }

    /** Where the tap of the given number starts to read on each spatial axis. */
    private List<Long> starts(long tap) {
        List<Long> starts = new ArrayList<>();
        long rest = tap;
        for (int axis = axes - 1; axis >= 0; axis--) {
            starts.add(0, rest % kernel[axis + 2] * dilations.get(axis));
            rest /= kernel[axis + 2];
        }
        return starts;
    }

    /** The gradient of one tap, [m, c, 1], for a result of m channels and c channels in a group of the operand. */
    private String ofTap(String g, String read) {
        if (kernel[1] == 1 && groups == kernel[0]) {
            long[] summed =
                    LongStream.range(0, axes + 2L).filter(axis -> axis != 1).toArray();
            String sum = graph.add(
                    "ReduceSum", BackwardGraph.integer("keepdims", 0), graph.add("Mul", g, read), graph.ints(summed));
            return graph.reshaped(sum, graph.ints(kernel[0], 1, 1));
        }
        String batch = graph.add("Shape", BackwardGraph.range(0, 1), g);
        String left = grouped(g, batch, kernel[0] / groups);
        String right = graph.add(
                "Transpose", BackwardGraph.integers("perm", List.of(0L, 1L, 3L, 2L)), grouped(read, batch, kernel[1]));
        String sum = graph.add(
                "ReduceSum", BackwardGraph.integer("keepdims", 0), graph.add("MatMul", left, right), graph.ints(0));
        return graph.reshaped(sum, graph.ints(kernel[0], kernel[1], 1));
    }

    /** [N, group × channels, L..] as [N, group, channels, L]. */
    private String grouped(String name, String batch, long channels) {
        String shape = graph.add(
                "Concat", BackwardGraph.integer("axis", 0), batch, graph.ints(groups, channels), graph.ints(-1));
        return graph.add("Reshape", name, shape);
    }
}
