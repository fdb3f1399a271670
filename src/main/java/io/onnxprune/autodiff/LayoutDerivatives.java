// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Value;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;

/**
 * Derivatives of operators that move, copy or cast elements. Gradients are moved back, and those of copies are added.
 */
final class LayoutDerivatives {
    private LayoutDerivatives() {}

    static void register(Derivatives.Table table) {
        table.add(d -> d.give(0, d.incoming(0)), "Identity");
        table.add(LayoutDerivatives::cast, "Cast", "CastLike");
        table.add(LayoutDerivatives::dropout, "Dropout");
        table.add(d -> d.give(0, d.graph().reshapedTo(d.incomingFull(0), d.input(0))), "Reshape", "Flatten");
        table.add(LayoutDerivatives::squeeze, "Squeeze");
        table.add(LayoutDerivatives::unsqueeze, "Unsqueeze");
        table.add(LayoutDerivatives::transpose, "Transpose");
        table.add(d -> d.giveBroadcast(0, d.incoming(0)), "Expand");
        table.add(LayoutDerivatives::tile, "Tile");
        table.add(LayoutDerivatives::concat, "Concat");
        table.add(LayoutDerivatives::split, "Split");
    }

    /** A cast is treated as the identity. Only float64 values have gradients of their own type. */
    private static void cast(Derivation d) {
        Gradient g = d.incoming(0);
        DType from = d.graph().precision(d.output());
        DType to = d.graph().precision(d.input(0));
        d.give(0, from == to ? g : g.renamed(d.graph().cast(g.name(), to)));
        if (d.wants(1)) {
            d.giveZero(1);
        }
    }

    /** The identity, unless the training mode is set. */
    private static void dropout(Derivation d) {
        Value training = d.input(2);
        long[] mode = training == null ? new long[] {0} : d.graph().integers(training);
        if (mode == null || mode[0] != 0) {
            throw d.unsupported("it drops elements at random");
        }
        d.give(0, d.incoming(0));
        if (d.wants(1)) {
            d.giveZero(1);
        }
    }

    private static void squeeze(Derivation d) {
        String g = d.incomingFull(0);
        d.give(
                0,
                d.input(1) == null
                        ? d.graph().reshapedTo(g, d.input(0))
                        : d.graph().add("Unsqueeze", g, d.input(1).name()));
    }

    private static void unsqueeze(Derivation d) {
        d.give(0, d.graph().add("Squeeze", d.incomingFull(0), d.input(1).name()));
    }

    /** The permutation of a Transpose; reversed axes when the attribute is absent. */
    static List<Long> permutation(Node node, int rank) {
        List<Long> listed = node.intsAttribute("perm");
        if (listed != null) {
            return listed;
        }
        List<Long> reversed = new ArrayList<>();
        for (long axis = rank - 1L; axis >= 0; axis--) {
            reversed.add(axis);
        }
        return reversed;
    }

    private static void transpose(Derivation d) {
        List<Long> permutation = permutation(d.node(), d.graph().rank(d.input(0)));
        Long[] inverse = new Long[permutation.size()];
        for (int i = 0; i < inverse.length; i++) {
            inverse[permutation.get(i).intValue()] = (long) i;
        }
        d.give(
                0,
                d.graph().add("Transpose", BackwardGraph.integers("perm", Arrays.asList(inverse)), d.incomingFull(0)));
    }

    /** The result is viewed as [r₀, d₀, r₁, d₁, ...] with repeats r and extents d, and summed over the repeats. */
    private static void tile(Derivation d) {
        BackwardGraph graph = d.graph();
        int rank = graph.rank(d.input(0));
        String repeats = graph.add("Unsqueeze", d.input(1).name(), graph.ints(1));
        String extents = graph.add("Unsqueeze", graph.shape(d.input(0)), graph.ints(1));
        String pairs = graph.add("Concat", BackwardGraph.integer("axis", 1), repeats, extents);
        String separated = graph.reshaped(d.incomingFull(0), graph.reshaped(pairs, graph.ints(-1)));
        long[] axes = new long[rank];
        Arrays.setAll(axes, axis -> 2L * axis);
        d.give(0, graph.add("ReduceSum", BackwardGraph.integer("keepdims", 0), separated, graph.ints(axes)));
    }

    private static void concat(Derivation d) {
        BackwardGraph graph = d.graph();
        int count = d.node().inputs().size();
        if (count == 1) {
            d.give(0, d.incoming(0));
            return;
        }
        int axis = Derivation.axis(d.node().intAttribute("axis", 0), graph.rank(d.output()));
        List<Value> operands = d.op().inputs().subList(0, count);
        boolean constant = operands.stream().allMatch(value -> graph.extent(value, axis) >= 0);
        String sizes = constant
                ? graph.ints(operands.stream()
                        .mapToLong(value -> graph.extent(value, axis))
                        .toArray())
                : graph.add(
                        "Concat",
                        BackwardGraph.integer("axis", 0),
                        operands.stream()
                                .map(value -> graph.extentAtRun(value, axis))
                                .toArray(String[]::new));
        List<String> pieces =
                graph.add("Split", BackwardGraph.integer("axis", axis), List.of(d.incomingFull(0), sizes), count);
        for (int i = 0; i < count; i++) {
            if (d.wants(i)) {
                d.give(i, pieces.get(i));
            }
        }
    }

    /** Concatenates the gradients of the parts, with zeros for an unused part. */
    private static void split(Derivation d) {
        int axis = Derivation.axis(d.node().intAttribute("axis", 0), d.graph().rank(d.input(0)));
        String[] pieces = new String[d.op().outputs().size()];
        for (int i = 0; i < pieces.length; i++) {
            String g = d.incomingFull(i);
            if (g == null) {
                Value piece = d.op().output(i);
                if (piece == null) {
                    throw d.unsupported("one of its outputs is left out");
                }
                g = d.graph().filled(d.input(0), d.graph().shape(piece), 0);
            }
            pieces[i] = g;
        }
        Map<String, Attribute> attributes = BackwardGraph.integer("axis", axis);
        d.give(0, pieces.length == 1 ? pieces[0] : d.graph().add("Concat", attributes, pieces));
    }
}
