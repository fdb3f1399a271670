// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import static io.onnxprune.autodiff.UnaryDerivatives.mul;
import static io.onnxprune.autodiff.UnaryDerivatives.scaled;
import static io.onnxprune.autodiff.UnaryDerivatives.zero;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Program.Value;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;

/**
 * Derivatives of reductions. The gradient of the result is brought to the rank of the operand with extent 1 on the
 * reduced axes. It is not expanded until it is combined with a full-size tensor.
 *
 * <p>Elements that tie for a minimum or maximum share the gradient equally, as in PyTorch's amin and amax.
 */
final class ReductionDerivatives {
    private ReductionDerivatives() {}

    /** Appends the gradient of the operand x; g and y (the result) have extent 1 on the reduced axes. */
    private interface Local {
        String gradient(Derivation d, String g, String x, String y, Set<Integer> axes);
    }

    static void register(Derivatives.Table table) {
        table.add(d -> reduce(d, null), "ReduceSum");
        table.add(ReductionDerivatives::mean, "ReduceMean");
        add(table, ReductionDerivatives::extreme, "ReduceMax");
        add(table, ReductionDerivatives::extreme, "ReduceMin");
        add(table, (d, g, x, y, axes) -> mul(d, scaled(d, g, 2), x), "ReduceSumSquare");
        add(table, (d, g, x, y, axes) -> mul(d, g, d.graph().add("Sign", x)), "ReduceL1");
        add(table, ReductionDerivatives::euclidean, "ReduceL2");
        add(
                table,
                (d, g, x, y, axes) -> mul(d, g, d.graph().add("Exp", d.graph().add("Sub", x, y))),
                "ReduceLogSumExp");
        table.add(ReductionDerivatives::cumulative, "CumSum");
    }

    private static void add(Derivatives.Table table, Local local, String operator) {
        table.add(d -> reduce(d, local), operator);
    }

    private static void reduce(Derivation d, Local local) {
        Set<Integer> axes = axes(d);
        Gradient g = kept(d, d.incoming(0), axes);
        if (local == null) {
            d.give(0, g);
        } else {
            String y = axes.isEmpty() || keepsAxes(d) ? d.out() : unsqueezed(d, d.out(), axes);
            // On axes on which the gradient was already stretched, x has the operand's extent.
            d.give(0, local.gradient(d, g.name(), d.in(0), y, axes));
        }
    }

    /** The gradient at the rank of the operand. */
    private static Gradient kept(Derivation d, Gradient g, Set<Integer> axes) {
        Set<Integer> stretched = new TreeSet<>(axes);
        if (axes.isEmpty() || keepsAxes(d)) {
            stretched.addAll(g.stretched());
            return new Gradient(g.name(), stretched);
        }
        int position = 0;
        for (int axis = 0; axis < d.graph().rank(d.input(0)); axis++) {
            if (!axes.contains(axis) && g.stretched().contains(position++)) {
                stretched.add(axis);
            }
        }
        return new Gradient(unsqueezed(d, g.name(), axes), stretched);
    }

    private static boolean keepsAxes(Derivation d) {
        return d.node().intAttribute("keepdims", 1) == 1;
    }

    private static String unsqueezed(Derivation d, String name, Set<Integer> axes) {
        return d.graph()
                .add(
                        "Unsqueeze",
                        name,
                        d.graph()
                                .ints(axes.stream()
                                        .mapToLong(Integer::longValue)
                                        .toArray()));
    }

    /** The reduced axes, counted from the front: those of the second operand, or all axes without one. */
    private static Set<Integer> axes(Derivation d) {
        int rank = d.graph().rank(d.input(0));
        Value operand = d.input(1);
        long[] listed = operand == null ? new long[0] : d.graph().integers(operand);
        if (listed == null) {
            throw d.unsupported("the axes that it reduces are not constant");
        }
        Set<Integer> axes = new TreeSet<>();
        for (long axis : listed) {
            axes.add(Derivation.axis(axis, rank));
        }
        if (listed.length == 0 && d.node().intAttribute("noop_with_empty_axes", 0) == 0) {
            for (int axis = 0; axis < rank; axis++) {
                axes.add(axis);
            }
        }
        return axes;
    }

    /** dx = g/n, with n the number of elements in each mean. */
    private static void mean(Derivation d) {
        Set<Integer> axes = axes(d);
        Gradient g = kept(d, d.incoming(0), axes);
        BackwardGraph graph = d.graph();
        long count = 1;
        for (int axis : axes) {
            long extent = graph.extent(d.input(0), axis);
            count = extent < 0 || count < 0 ? -1 : count * extent;
        }
        if (count >= 0) {
            d.give(0, g.renamed(scaled(d, g.name(), 1.0 / count)));
            return;
        }
        String total = "";
        for (int axis : axes) {
            String extent = graph.extentAtRun(d.input(0), axis);
            total = total.isEmpty() ? extent : mul(d, total, extent);
        }
        // A scalar, so that it does not increase the rank of the quotient.
        String divisor = graph.cast(graph.add("Squeeze", total), graph.precision(d.output()));
        d.give(0, g.renamed(graph.add("Div", g.name(), divisor)));
    }

    private static String extreme(Derivation d, String g, String x, String y, Set<Integer> axes) {
        BackwardGraph graph = d.graph();
        String chosen = graph.cast(graph.add("Equal", x, y), graph.precision(d.output()));
        String axesInput =
                graph.ints(axes.stream().mapToLong(Integer::longValue).toArray());
        Map<String, Attribute> attributes =
                Map.of("keepdims", new Attribute.Int(1), "noop_with_empty_axes", new Attribute.Int(1));
        String ties = graph.add("ReduceSum", attributes, chosen, axesInput);
        return mul(d, chosen, graph.add("Div", g, ties));
    }

    /** dx = g·x/y, and 0 where the norm is 0. */
    private static String euclidean(Derivation d, String g, String x, String y, Set<Integer> axes) {
        String isZero = d.graph().add("Equal", y, zero(d));
        return mul(d, d.graph().add("Where", isZero, zero(d), d.graph().add("Div", g, y)), x);
    }

    /** The gradient of a cumulative sum is a cumulative sum in the opposite direction. */
    private static void cumulative(Derivation d) {
        Map<String, Attribute> attributes = Map.of(
                "exclusive", new Attribute.Int(d.node().intAttribute("exclusive", 0)),
                "reverse", new Attribute.Int(1 - d.node().intAttribute("reverse", 0)));
        d.give(
                0,
                d.graph()
                        .add("CumSum", attributes, d.incomingFull(0), d.input(1).name()));
    }
}
