// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Value;
import java.util.Set;

/**
 * Follows integers that are indices along a dimension, such as the experts that a top-k selects. They may be moved and
 * may select from axes of that dimension, which a pruned model does among the kept indices as well. Where they are
 * used as numbers, the dimension is pinned.
 */
final class Pointers {
    /** Operators that select with operand 1. */
    private static final Set<String> SELECTS =
            Set.of("Gather", "GatherElements", "GatherND", "Scatter", "ScatterElements", "ScatterND");

    private Pointers() {}

    /** Declares what indices become by the operator, and pins their dimension where that is not known. */
    static void follow(RuleContext c) {
        followComponents(c);
        boolean joins = joinsComponents(c);
        for (int input = 0; input < c.op().inputs().size(); input++) {
            Dim target = c.op().input(input) == null ? null : c.target(input);
            if (target == null) {
                continue;
            }
            if (joins) {
                continue;
            }
            if (input == 0 && Absent.moves(c.node())) {
                for (int i = 0; i < c.op().outputs().size(); i++) {
                    c.pointsTo(i, target);
                }
            } else if (!(input == 1 && selects(c.node())) && !readsIndices(c.node(), input)) {
                c.pin(target, "its indices are used as numbers");
            }
        }
    }

    /** Whether indices become components of one index, such as (token, expert); declares them. */
    private static boolean joinsComponents(RuleContext c) {
        Dim[] out = c.node().is("Concat") ? c.out(0) : null;
        if (out == null || RuleContext.axis(c.node().intAttribute("axis", 0), out.length) != out.length - 1) {
            return false;
        }
        Dim[] components = new Dim[c.op().inputs().size()];
        boolean any = false;
        for (int input = 0; input < components.length; input++) {
            Dim[] in = c.in(input);
            if (in == null || !in[in.length - 1].isOne()) {
                return false;
            }
            components[input] = c.target(input);
            any |= components[input] != null;
        }
        if (any) {
            c.hasComponents(components);
        }
        return any;
    }

    /** Pins the dimensions of components that are not read as such. */
    private static void followComponents(RuleContext c) {
        for (int input = 0; input < c.op().inputs().size(); input++) {
            boolean reads = input == 1 && (c.node().is("GatherND") || c.node().is("ScatterND"));
            Dim[] components = reads ? null : c.components(input);
            for (int i = 0; components != null && i < components.length; i++) {
                c.pin(components[i], "its indices are used as numbers");
            }
        }
    }

    private static boolean selects(Node node) {
        return node.domain().isEmpty() && SELECTS.contains(node.op());
    }

    private static boolean readsIndices(Node node, int input) {
        return node.is("Shape") || node.is("Size") || node.is("Equal") || node.is("OneHot") && input == 0;
    }

    /** Pins the dimension whose indices an output of the model shows. */
    static void pinOutput(DimensionAnalysis analysis, Value output) {
        Dim target = analysis.targets().get(output);
        if (target != null) {
            target.atoms().forEach(atom -> atom.pin("graph output \"" + output.name() + "\" has its indices"));
        }
    }
}
