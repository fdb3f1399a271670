// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.dims.AnalysisFacts.Selection;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Program.Value;
import java.util.ArrayDeque;
import java.util.Arrays;
import java.util.Comparator;
import java.util.Deque;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.PriorityQueue;
import java.util.Set;
import java.util.function.Predicate;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/**
 * What is left of the operators that serve one index each of a dimension, such as one expert, when that index is never
 * chosen: their values are zero or empty, and what they are added to or written into stays as it is. So they can be
 * removed with the index.
 */
public final class Absence {
    /** What is known of a value that depends on an absent index. */
    private enum State {
        /** All elements, if there are any, are zero or false. */
        ZERO,
        /** All elements are true. */
        TRUE,
        /** There are no elements. */
        EMPTY,
        /** A size or an index that only matters to values of the other kinds. */
        SIZE
    }

    private final DimensionAnalysis analysis;
    private final UnchosenZeros zeros;
    private final Map<Value, State> states = new HashMap<>();
    private final Set<Dim.Atom> empty = new HashSet<>();
    private final Map<Op, Integer> passed = new LinkedHashMap<>();
    private final PriorityQueue<Op> open = new PriorityQueue<>(Comparator.comparingInt(Op::index));
    private Op obstacle;

    private Absence(DimensionAnalysis analysis, UnchosenZeros zeros) {
        this.analysis = analysis;
        this.zeros = zeros;
    }

    /**
     * Follows what happens without some indices.
     *
     * @param zeros the values that are zero at each index that is not chosen
     * @param absent the selections of these indices
     */
    static Absence of(DimensionAnalysis analysis, UnchosenZeros zeros, List<Selection> absent) {
        Absence absence = new Absence(analysis, zeros);
        absent.forEach(absence::start);
        while (!absence.open.isEmpty() && absence.obstacle == null) {
            absence.visit(absence.open.poll());
        }
        return absence;
    }

    /** The operator that may do something else without the indices; null if there is none. */
    Op obstacle() {
        return obstacle;
    }

    /** The operators whose first result is their operand of the given number without the indices. */
    public Map<Op, Integer> passed() {
        return passed;
    }

    private void start(Selection selection) {
        Op op = selection.op();
        boolean isZero = op.node().is("Equal") || zeros.contains(op.input(0));
        if (isZero) {
            set(op.output(selection.output()), State.ZERO);
        } else {
            obstacle = op;
        }
    }

    private void set(Value value, State state) {
        states.put(value, state);
        value.uses().forEach(use -> open.add(use.op()));
        if (analysis.program().outputs().contains(value)) {
            obstacle = value.producer();
        }
    }

    private void visit(Op op) {
        if (passed.containsKey(op) || states.containsKey(op.output(0))) {
            return;
        }
        int operand = passedOperand(op);
        boolean depends = op.inputs().stream().anyMatch(states::containsKey);
        if (operand < 0 && !depends) {
            return;
        }
        State state = operand >= 0 ? null : result(op);
        if (operand >= 0) {
            passed.put(op, operand);
            if (zeros.isZeroEverywhere(left(op.output(0)))) {
                op.output(0).uses().forEach(use -> open.add(use.op()));
            }
        } else if (state == null) {
            obstacle = op;
        } else {
            op.outputs().stream().filter(Objects::nonNull).forEach(output -> set(output, state));
        }
    }

    private State state(Op op, int input) {
        return op.input(input) == null ? null : states.get(op.input(input));
    }

    /** Whether an operand adds nothing: it depends on an absent index, or on nothing else than zeros without it. */
    private boolean nothing(Op op, int input) {
        State state = state(op, input);
        Value value = op.input(input);
        Op producer = value == null ? null : value.producer();
        boolean zeroLeft = producer != null && passed.containsKey(producer) && zeros.isZeroEverywhere(left(value));
        return state == State.ZERO || state == State.EMPTY || zeroLeft;
    }

    private boolean isZero(Op op, int input) {
        return nothing(op, input) || op.input(input) != null && zeros.isZeroEverywhere(op.input(input));
    }

    /** What a value is without the indices: an operand of the operator that makes it, or the value itself. */
    public Value left(Value value) {
        Value current = value;
        while (current.producer() != null
                && passed.containsKey(current.producer())
                && current == current.producer().output(0)) {
            current = current.producer().input(passed.get(current.producer()));
        }
        return current;
    }

    /** The operand that a sum, a choice or a write returns unchanged; -1 if it does more, or if nothing is left of it too. */
    private int passedOperand(Op op) {
        Node node = op.node();
        int operand = -1;
        if (node.is("Add") || node.is("Or")) {
            operand = nothing(op, 0) ? 1 : nothing(op, 1) ? 0 : -1;
        } else if (node.is("Sub") && nothing(op, 1)) {
            operand = 0;
        } else if (node.is("Where") && (nothing(op, 0) || state(op, 0) == State.TRUE)) {
            operand = nothing(op, 0) ? 2 : 1;
        } else if (node.op().startsWith("Scatter") && (state(op, 1) == State.EMPTY || adds(node) && nothing(op, 2))) {
            operand = 0;
        }
        boolean live = operand >= 0 && state(op, operand) == null && op.input(operand) != null;
        return live && sameShape(op.input(operand), op.output(0)) ? operand : -1;
    }

    private static boolean adds(Node node) {
        return node.textAttribute("reduction", "none").equals("add");
    }

    private boolean sameShape(Value left, Value right) {
        Dim[] a = analysis.dims(left);
        Dim[] b = analysis.dims(right);
        return a != null
                && b != null
                && a.length == b.length
                && IntStream.range(0, a.length).allMatch(axis -> a[axis].sameSize(b[axis]));
    }

    /** The state of the results; null if it is not known. */
    private State result(Op op) {
        Node node = op.node();
        if (node.is("Shape") || node.is("Size")) {
            return State.SIZE;
        }
        if (node.is("NonZero") && nothing(op, 0)) {
            empty.addAll(analysis.dims(op.output(0))[1].atoms());
            return State.EMPTY;
        }
        if (isEmpty(op) || Absent.isEmptied(node, input -> state(op, input) == State.EMPTY)) {
            return State.EMPTY;
        }
        if (node.is("Not") && state(op, 0) != null) {
            return state(op, 0) == State.TRUE ? State.ZERO : state(op, 0) == State.ZERO ? State.TRUE : null;
        }
        if (node.is("Where") && state(op, 0) == State.TRUE && isZero(op, 1)) {
            return State.ZERO;
        }
        if (Absent.keepsZero(node, input -> isZero(op, input)) || writesNothing(op)) {
            return State.ZERO;
        }
        if (Absent.moves(node) && state(op, 0) != null) {
            return state(op, 0);
        }
        boolean sizes = IntStream.range(0, op.inputs().size())
                .allMatch(input -> state(op, input) == null || state(op, input) == State.SIZE);
        if (sizes && node.is("ConstantOfShape") && Absent.fillsZero(node)) {
            return State.ZERO;
        }
        boolean integers = !analysis.trace().dtype(op.output(0)).isFloat() && analysis.dims(op.output(0)).length <= 1;
        return sizes && integers && !node.is("If") ? State.SIZE : null;
    }

    private boolean isEmpty(Op op) {
        Dim[] dims = op.output(0) == null ? null : analysis.dims(op.output(0));
        return dims != null
                && op.outputs().size() == 1
                && Arrays.stream(dims).anyMatch(dim -> dim.atoms().stream().anyMatch(empty::contains));
    }

    /** A write into zeros that writes nothing, or zeros. */
    private boolean writesNothing(Op op) {
        return op.node().op().startsWith("Scatter") && isZero(op, 0) && (state(op, 1) == State.EMPTY || nothing(op, 2));
    }

    /**
     * The constants that are read by nothing but operators without an effect.
     *
     * @param gone uses that go with the indices
     */
    Set<Value> unused(List<Use> gone) {
        return useless(gone).stream().filter(value -> value.constant() != null).collect(Collectors.toSet());
    }

    /** The values that nothing reads without the indices, beside those that depend on them. */
    Set<Value> useless(List<Use> gone) {
        Set<Op> dead = new HashSet<>();
        Set<Value> found = new LinkedHashSet<>();
        Deque<Value> candidates = new ArrayDeque<>();
        Predicate<Use> isDead = use -> dead.contains(use.op())
                || gone.contains(use)
                || dependsWhole(use.op())
                || passed.containsKey(use.op()) && passed.get(use.op()) != use.input();
        states.keySet().forEach(value -> candidates.addAll(operands(value.producer())));
        gone.forEach(use -> candidates.add(use.op().input(use.input())));
        passed.keySet().forEach(op -> candidates.addAll(operands(op)));
        while (!candidates.isEmpty()) {
            Value value = candidates.pop();
            boolean shown = analysis.program().outputs().contains(value);
            if (shown || value.uses().isEmpty() || !value.uses().stream().allMatch(isDead)) {
                continue;
            }
            found.add(value);
            Op producer = value.producer();
            boolean useless = producer != null
                    && producer.outputs().stream()
                            .filter(Objects::nonNull)
                            .allMatch(output -> output.uses().stream().allMatch(isDead));
            if (useless && dead.add(producer)) {
                candidates.addAll(operands(producer));
            }
        }
        return found;
    }

    /** Whether all results of an operator depend on absent indices. */
    private boolean dependsWhole(Op op) {
        return op.outputs().stream().allMatch(output -> output == null || states.containsKey(output));
    }

    private static List<Value> operands(Op op) {
        return op.inputs().stream().filter(Objects::nonNull).toList();
    }
}
