// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.dims.AnalysisFacts.Choice;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.function.Predicate;

/**
 * The dimensions whose indices compete with each other in a softmax, a top-k or a router of fused experts. A pruned
 * model chooses among the kept indices, which is as if the others had the smallest of all scores.
 */
final class Choices {
    private final DimensionAnalysis analysis;
    private final List<Choice> choices;

    Choices(DimensionAnalysis analysis) {
        this.analysis = analysis;
        this.choices = analysis.facts().choices();
    }

    /** The variables of these dimensions. */
    Set<Dim.Atom> atoms() {
        Set<Dim.Atom> atoms = new LinkedHashSet<>();
        choices.forEach(choice -> atoms.addAll(axis(choice).atoms()));
        return atoms;
    }

    /**
     * Pins what is chosen among in groups, where an index alone has no meaning, and what is not {@code wanted}: other
     * structures are pruned as if they were zero, which is a score like any other.
     */
    void pinOthers(Predicate<Dim.Atom> wanted) {
        for (Choice choice : choices) {
            Dim axis = axis(choice);
            boolean whole = axis instanceof Dim.Atom;
            axis.atoms().stream()
                    .filter(atom -> !whole || !wanted.test(atom))
                    .forEach(atom -> atom.pin(reason(choice)));
        }
    }

    private String reason(Choice choice) {
        Dim axis = axis(choice);
        if (axis instanceof Dim.Atom) {
            boolean softmax = choice.op().node().op().endsWith("Softmax");
            return (softmax ? "normalised by a softmax" : "ranked") + at(choice);
        }
        // Experts in groups: another choice is made among the groups, or within each of them.
        Choice first = choices.stream()
                .filter(other -> axis.atoms().contains(axis(other)))
                .findFirst()
                .orElse(choice);
        return "chosen in groups or parts" + at(first);
    }

    private static String at(Choice choice) {
        return " at node " + label(choice);
    }

    private static String label(Choice choice) {
        return choice.op().node().label();
    }

    private Dim axis(Choice choice) {
        return analysis.operand(choice.op(), choice.input())[choice.axis()].resolve();
    }

    /** The smallest number of units of {@code atom} that all its choices allow. */
    Dimension.Least least(Dim.Atom atom) {
        Choice most = null;
        for (Choice choice : choices) {
            if (axis(choice) == atom && choice.least() > (most == null ? 1 : most.least())) {
                most = choice;
            }
        }
        return most == null
                ? Dimension.Least.ONE
                : new Dimension.Least(most.least(), "as many are chosen at node " + label(most));
    }
}
