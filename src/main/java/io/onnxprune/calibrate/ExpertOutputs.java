// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.lower.SelectedRows;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;

/**
 * Finds where the outputs of experts are added in a lowered program. Values are marked by the expert whose weights they
 * are computed with, from the weights on. The last marked value before values of several experts meet, or before one is
 * added to anything else, is the output of its expert with its gate:
 *
 * <pre>
 *     rows of one expert ─ W1 ─ act ─ W2 ─ Mul gate ─ [output] ─ Scatter or Add
 *     parts of all experts ─ Concat ─ Gather places ─ Mul gates ─ [outputs] ─ ReduceSum
 *     tokens ─ stack [experts, ..] ─ Mul gates ─ [outputs along the first axis] ─ ReduceSum
 * </pre>
 */
final class ExpertOutputs {
    /**
     * Whose rows a value has.
     *
     * @param expert one expert, or {@link ExpertWeight#ALL} for rows of all of them
     * @param index the expert of each row; null where it is not known
     * @param along whether the first axis is that of all experts
     */
    private record Mark(String mixture, int expert, Value index, boolean along) {
        static Mark of(String mixture, int expert) {
            return new Mark(mixture, expert, null, false);
        }

        boolean isJoined() {
            return expert == ExpertWeight.ALL;
        }
    }

    private final DataFlow flow;
    private final Map<String, ExpertWeight> weights;
    private final Map<Value, Mark> marks = new HashMap<>();
    private final List<ExpertOutput> found = new ArrayList<>();

    private ExpertOutputs(DataFlow flow, Map<String, ExpertWeight> weights) {
        this.flow = flow;
        this.weights = weights;
    }

    /** The outputs in order of execution. An expert whose output is not found is left out. */
    static List<ExpertOutput> of(DataFlow flow, Map<String, ExpertWeight> weights) {
        ExpertOutputs outputs = new ExpertOutputs(flow, weights);
        flow.program().initializers().forEach((name, value) -> {
            ExpertWeight weight = weights.get(name);
            if (weight != null && weight.expert() != ExpertWeight.ALL) {
                outputs.marks.put(value, Mark.of(weight.mixture(), weight.expert()));
            }
        });
        flow.program().ops().forEach(outputs::visit);
        return outputs.found;
    }

    private Mark mark(Op op, int input) {
        return input < op.inputs().size() && op.input(input) != null ? marks.get(op.input(input)) : null;
    }

    private void visit(Op op) {
        if (op.node().is("Split")) {
            parts(op);
            return;
        }
        Mark result = result(op);
        if (result != null) {
            op.outputs().stream().filter(Objects::nonNull).forEach(value -> marks.put(value, result));
        }
    }

    /** Rows in the order of their experts are split into those of each. */
    private void parts(Op op) {
        Mark mark = mark(op, 0);
        Op before = op.input(0).producer();
        boolean sorted = mark != null
                && mark.isJoined()
                && before.node().is("Gather")
                && SelectedRows.isOrder(before.input(1), mark.index);
        for (int i = 0; mark != null && i < op.outputs().size(); i++) {
            if (op.output(i) != null) {
                marks.put(op.output(i), sorted ? Mark.of(mark.mixture, i) : mark);
            }
        }
    }

    private Mark result(Op op) {
        ExpertWeight one = slice(op);
        if (one != null) {
            return Mark.of(one.mixture(), one.expert());
        }
        ExpertWeight all = op.node().is("MatMul") ? stack(op.input(1)) : null;
        if (all != null && rank(op.input(1)) == 3) {
            return new Mark(all.mixture(), ExpertWeight.ALL, null, true);
        }
        Set<Mark> distinct = new HashSet<>();
        op.inputs().stream().filter(Objects::nonNull).map(marks::get).forEach(distinct::add);
        distinct.remove(null);
        if (distinct.isEmpty() || op.node().is("Shape") || op.node().is("Size")) {
            return null;
        }
        if (op.node().op().startsWith("Scatter")) {
            output(op.input(2));
            return null;
        }
        Mark only = distinct.size() == 1 ? distinct.iterator().next() : null;
        if (op.node().is("Concat")) {
            return only != null && op.inputs().size() == 1 ? only : concatenated(op);
        }
        if (only != null && only.isJoined()) {
            return joined(op, only);
        }
        boolean meets = op.node().is("Add") || op.node().is("Sum");
        if (meets && (only == null || meetsOthers(op))) {
            op.inputs().forEach(this::output);
            return null;
        }
        return only;
    }

    /** Whether a marked value is added to a value of tokens that has no mark. */
    private boolean meetsOthers(Op op) {
        return op.inputs().stream().anyMatch(value -> !marks.containsKey(value) && flow.isStream(value));
    }

    /** The expert whose slice of a stack an operator takes; null if it does something else. */
    private ExpertWeight slice(Op op) {
        if (!op.node().is("Gather")
                || op.node().intAttribute("axis", 0) != 0
                || op.input(1).constant() == null) {
            return null;
        }
        ExpertWeight all = stack(op.input(0));
        Tensor index = op.input(1).constant();
        return all == null || index.elements() != 1 ? null : new ExpertWeight(all.mixture(), (int) index.toLongs()[0]);
    }

    /** The mixture whose stacked weights a value holds; null for any other value. */
    private ExpertWeight stack(Value value) {
        Value stack = value;
        while (stack.constant() == null
                && stack.producer() != null
                && (stack.producer().node().is("Cast")
                        || stack.producer().node().is("Identity"))) {
            stack = stack.producer().input(0);
        }
        ExpertWeight weight = stack.constant() == null ? null : weights.get(stack.name());
        return weight == null || weight.expert() != ExpertWeight.ALL ? null : weight;
    }

    private Mark concatenated(Op op) {
        Set<String> mixtures = new HashSet<>();
        op.inputs().forEach(value -> mixtures.add(marks.containsKey(value) ? marks.get(value).mixture : ""));
        boolean rows = op.node().intAttribute("axis", 0) == 0;
        return rows && mixtures.size() == 1 ? Mark.of(mixtures.iterator().next(), ExpertWeight.ALL) : null;
    }

    /** Rows of all experts stay so as long as their order does. */
    private Mark joined(Op op, Mark mark) {
        return switch (op.node().op()) {
            case "Gather" ->
                mark(op, 0) == null
                        ? null
                        : SelectedRows.index(op)
                                .map(index -> new Mark(mark.mixture, mark.expert, index, false))
                                .orElse(SelectedRows.isOrder(op.input(1), mark.index) ? mark : null);
            case "ReduceSum" -> {
                Set<Integer> axes = axes(op);
                if (axes.equals(Set.of(rank(op.input(0)) - 1))) {
                    yield mark;
                }
                if (!mark.along || axes.equals(Set.of(0))) {
                    output(op.input(0));
                }
                yield null;
            }
            case "Transpose" -> {
                List<Long> order = op.node().intsAttribute("perm");
                yield order != null && order.get(0) == 0 ? mark : null;
            }
            case "MatMul", "Gemm", "Einsum", "TopK", "NonZero" -> null;
            default -> !mark.along || rank(op.output(0)) == 3 ? mark : null;
        };
    }

    /** The axes that a sum is over; none where they are not constant. */
    private Set<Integer> axes(Op op) {
        Set<Integer> found = new HashSet<>();
        Value axes = op.input(1);
        if (axes != null && axes.constant() != null) {
            Arrays.stream(axes.constant().toLongs())
                    .forEach(axis -> found.add((int) Math.floorMod(axis, (long) rank(op.input(0)))));
        }
        return found;
    }

    private int rank(Value value) {
        long[] shape = flow.trace().shape(value, 0);
        return shape == null ? 0 : shape.length;
    }

    private void output(Value value) {
        Mark mark = value == null ? null : marks.get(value);
        long[] shape = value == null ? null : flow.trace().shape(value, 0);
        boolean known = mark != null && (!mark.isJoined() || mark.index != null || mark.along);
        if (!known || shape == null || shape.length == 0) {
            return;
        }
        Activation activation = new Activation(value.name(), (int) shape[shape.length - 1]);
        String index = mark.index == null ? "" : mark.index.name();
        found.add(new ExpertOutput(mark.mixture, mark.expert, activation, index));
    }
}
