// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.dims.AnalysisFacts.Choice;
import io.onnxprune.dims.AnalysisFacts.Part;
import io.onnxprune.dims.AnalysisFacts.Selection;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Program.Value;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Predicate;

/**
 * The dimensions whose indices compete with each other in a softmax, a top-k or a router of fused experts. A pruned
 * model chooses among the kept indices, which is as if the others had the smallest of all scores.
 */
final class Choices {
    private final DimensionAnalysis analysis;
    private final List<Choice> choices;
    private final Map<Dim.Atom, List<Set<Value>>> own = new HashMap<>();

    Choices(DimensionAnalysis analysis) {
        this.analysis = analysis;
        this.choices = analysis.facts().choices();
        linkPieces();
        pinParts();
    }

    /** The variables of these dimensions. */
    Set<Dim.Atom> atoms() {
        Set<Dim.Atom> atoms = new LinkedHashSet<>();
        choices.stream()
                .filter(Choice::competes)
                .forEach(choice -> atoms.addAll(axis(choice).atoms()));
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
        findOwn();
    }

    /**
     * Finds the constants of each index that is served by operators of its own, such as the weights of an expert, and
     * pins dimensions where these operators cannot be removed.
     */
    private void findOwn() {
        UnchosenZeros zeros = zeros();
        Map<Dim.Atom, List<Selection>> byAtom = selectionsByAtom();
        analysis.facts().parts().stream()
                .map(part -> part.dim().resolve())
                .filter(dim -> dim instanceof Dim.Atom)
                .forEach(dim -> byAtom.putIfAbsent((Dim.Atom) dim, List.of()));
        byAtom.forEach((atom, selections) -> {
            List<Set<Value>> units = new ArrayList<>();
            for (int unit = 0; unit < atom.size(0) && atom.pin() == null; unit++) {
                Absence absence = Absence.of(analysis, zeros, of(selections, unit));
                if (absence.obstacle() != null) {
                    atom.pin("what is left without one of them is not known at node "
                            + absence.obstacle().node().label());
                }
                units.add(absence.unused(partsOf(atom, unit)));
            }
            own.put(atom, units);
        });
    }

    /**
     * Stacks from which every operator of an index takes the piece of that index are indexed by the same dimension. What
     * else takes pieces out of a constant pins the axis.
     */
    private void linkPieces() {
        Map<Dim, List<Selection>> stacks = new LinkedHashMap<>();
        analysis.facts()
                .pieces()
                .forEach(piece -> stacks.computeIfAbsent(piece.dim().resolve(), key -> new ArrayList<>())
                        .add(piece));
        Map<Value, Selection> served = stacks.isEmpty() ? Map.of() : served();
        stacks.forEach((axis, pieces) -> {
            Selection first = served.get(result(pieces.get(0)));
            boolean same = first != null
                    && axis instanceof Dim.Atom
                    && axis.sameSize(first.dim())
                    && pieces.stream().allMatch(piece -> serves(served.get(result(piece)), first.dim(), piece.index()));
            try {
                if (same) {
                    analysis.unifier()
                            .unify(axis, first.dim(), first.op().node().label());
                }
            } catch (Unifier.MismatchException e) {
                same = false;
            }
            for (Selection piece : pieces) {
                if (same && !piece.op().node().is("Split")) {
                    analysis.facts()
                            .sizes()
                            .add(new AnalysisFacts.SizeOperand(piece.op(), 1, 0, 1, axis, piece.index()));
                } else if (!same) {
                    axis.atoms()
                            .forEach(atom -> atom.pin("selected by a constant index at node "
                                    + piece.op().node().label()));
                }
            }
        });
    }

    /** What is put together of single values is that many parts, unless operators choose among them. */
    private void pinParts() {
        Set<Dim.Atom> chosen = atoms();
        for (Part part : analysis.facts().parts()) {
            Dim dim = part.dim().resolve();
            if (dim instanceof Dim.Atom atom && !chosen.contains(atom) && part.index() == 0) {
                atom.pin("single index of a concatenation at node "
                        + part.op().node().label());
                cut(atom);
            } else if (!(dim instanceof Dim.Atom)) {
                dim.atoms()
                        .forEach(atom -> atom.pin("single index of a concatenation at node "
                                + part.op().node().label()));
            }
        }
    }

    private void cut(Dim.Atom atom) {
        try {
            analysis.unifier().cutInto(atom, Collections.nCopies(Math.toIntExact(atom.size(0)), 1L));
        } catch (Unifier.MismatchException e) {
            // It stays whole, and is pinned already.
            atom.pin(e.getMessage());
        }
    }

    private static boolean serves(Selection selection, Dim dim, int index) {
        return selection != null
                && selection.index() == index
                && selection.dim().resolve() == dim.resolve();
    }

    private static Value result(Selection selection) {
        return selection.op().output(selection.output());
    }

    /** The selection that each value serves alone. */
    private Map<Value, Selection> served() {
        UnchosenZeros zeros = zeros();
        Map<Value, Selection> served = new HashMap<>();
        selectionsByAtom().forEach((atom, selections) -> {
            for (int unit = 0; unit < atom.size(0); unit++) {
                List<Selection> own = of(selections, unit);
                if (!own.isEmpty()) {
                    Absence absence = Absence.of(analysis, zeros, own);
                    absence.useless(List.of()).forEach(value -> served.put(value, own.get(0)));
                }
            }
        });
        return served;
    }

    private Map<Dim.Atom, List<Selection>> selectionsByAtom() {
        Map<Dim.Atom, List<Selection>> byAtom = new LinkedHashMap<>();
        for (Selection selection : analysis.facts().selections()) {
            if (selection.dim().resolve() instanceof Dim.Atom atom) {
                byAtom.computeIfAbsent(atom, key -> new ArrayList<>()).add(selection);
            }
        }
        return byAtom;
    }

    private List<Use> partsOf(Dim.Atom atom, int unit) {
        return analysis.facts().parts().stream()
                .filter(part -> part.index() == unit && part.dim().resolve() == atom)
                .map(part -> new Use(part.op(), part.input()))
                .toList();
    }

    private static List<Selection> of(List<Selection> selections, int unit) {
        return selections.stream()
                .filter(selection -> selection.index() == unit)
                .toList();
    }

    private UnchosenZeros zeros() {
        return UnchosenZeros.of(analysis, atoms());
    }

    /** What happens without the indices that are not kept. */
    Absence absence(Dim.Keep keep) {
        List<Selection> absent = analysis.facts().selections().stream()
                .filter(selection -> selection.dim().resolve() instanceof Dim.Atom atom
                        && keep.kept(atom) != null
                        && Arrays.binarySearch(keep.kept(atom), selection.index()) < 0)
                .toList();
        return Absence.of(analysis, absent.isEmpty() ? UnchosenZeros.NONE : zeros(), absent);
    }

    private String reason(Choice choice) {
        Dim axis = axis(choice);
        if (!choice.competes()) {
            return "reduced by " + choice.op().node().op() + at(choice);
        }
        if (axis instanceof Dim.Atom) {
            boolean softmax = choice.op().node().op().endsWith("Softmax");
            return (softmax ? "normalised by a softmax" : "ranked") + at(choice);
        }
        // Experts in groups: another choice is made among the groups, or within each of them.
        Choice first = choices.stream()
                .filter(other -> axis.atoms().contains(axis(other)))
                .findFirst()
                .orElse(choice);
        return "chosen in groups" + at(first);
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

    /** What holds for the units of {@code atom}. */
    Dimension.Units units(Dim.Atom atom) {
        Choice most = null;
        for (Choice choice : choices) {
            if (axis(choice) == atom && choice.least() > (most == null ? 1 : most.least())) {
                most = choice;
            }
        }
        List<Set<Value>> constants = own.getOrDefault(atom, List.of());
        return most == null
                ? new Dimension.Units(1, "", constants)
                : new Dimension.Units(most.least(), "as many are chosen at node " + label(most), constants);
    }
}
