// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Trace;
import io.onnxprune.ir.GraphBuilder;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * Reverse-mode differentiation of a segment of a program. It appends nodes that compute the gradients of requested
 * values from the gradients that flow into the segment. Only operators between a requested value and a seed are
 * differentiated.
 */
public final class Backward {
    private final BackwardGraph graph;
    private final Set<Op> ops;
    private final Set<Value> active;
    private final Set<Value> wanted;
    private final Map<Value, List<Contribution>> contributions = new HashMap<>();
    private final Map<Value, Gradient> totals = new HashMap<>();

    private Backward(BackwardGraph graph, List<Op> ops, Collection<Value> wanted) {
        this.graph = graph;
        this.ops = new LinkedHashSet<>(ops);
        this.wanted = new LinkedHashSet<>(wanted);
        this.active = active();
    }

    /**
     * Appends the nodes that compute gradients.
     *
     * @param ops operator applications of a lowered program in order of execution (a segment of it)
     * @param trace traced shapes of the program's values. Only ranks, static extents and axes of extent 1 are used,
     *     because batch and length vary at run time
     * @param seeds from a value to the name of the gradient that flows into it from outside, a tensor of its shape
     * @param wanted values to differentiate with respect to: initializers or inner values, also the segment's inputs.
     *     An integer initializer that is only cast is treated as real
     * @param into receives the nodes; they refer to values of the program and seeds by name
     * @return from each wanted value to the name of its gradient, of the value's shape, float64 for float64 values and
     *     float32 for all others. Values that no seed depends on are absent
     * @throws UserException when an operator between a wanted value and a seed has no derivative; the message names
     *     the node
     */
    public static Map<Value, String> append(
            List<Op> ops, Trace trace, Map<Value, String> seeds, Collection<Value> wanted, GraphBuilder into) {
        Backward backward = new Backward(new BackwardGraph(into, trace), ops, wanted);
        seeds.forEach((value, name) -> backward.contribute(value, Gradient.full(name)));
        for (int i = ops.size() - 1; i >= 0; i--) {
            backward.differentiate(ops.get(i));
        }
        return backward.results();
    }

    /** The wanted values and all values that depend on them differentiably. */
    private Set<Value> active() {
        Set<Value> found = new HashSet<>();
        wanted.stream()
                .filter(value -> graph.isDifferentiable(value) || value.constant() != null)
                .forEach(found::add);
        for (Op op : ops) {
            if (!Derivatives.stops(op.node())
                    && op.inputs().stream().anyMatch(input -> input != null && found.contains(input))) {
                op.outputs().stream()
                        .filter(output -> output != null && graph.isDifferentiable(output))
                        .forEach(found::add);
            }
        }
        return found;
    }

    private void contribute(Value value, Contribution contribution) {
        if (active.contains(value)) {
            contributions.computeIfAbsent(value, key -> new ArrayList<>()).add(contribution);
        }
    }

    private void differentiate(Op op) {
        boolean reached = op.outputs().stream().anyMatch(output -> output != null && contributions.containsKey(output));
        boolean leads = op.inputs().stream().anyMatch(input -> input != null && active.contains(input));
        if (!reached || !leads || Derivatives.stops(op.node())) {
            return;
        }
        Derivation derivation = new Derivation(op, graph, active::contains, this::total, this::contribute, ops, wanted);
        Derivatives.Rule rule = Derivatives.find(op.node());
        if (rule == null) {
            throw derivation.unsupported("the operator has no derivative");
        }
        if (!shapesAreKnown(op)) {
            throw derivation.unsupported("its shapes are not known");
        }
        rule.apply(derivation);
        derivation.check();
    }

    private boolean shapesAreKnown(Op op) {
        return op.inputs().stream().allMatch(value -> value == null || graph.hasShape(value))
                && op.outputs().stream().allMatch(value -> value == null || graph.hasShape(value));
    }

    /** The sum of all contributions; null when there is none. Called only after all consumers were differentiated. */
    private Gradient total(Value value) {
        List<Contribution> list = contributions.get(value);
        if (list == null) {
            return null;
        }
        Gradient total = totals.get(value);
        if (total == null) {
            total = new Summation(graph, value).of(list);
            totals.put(value, total);
        }
        return total;
    }

    private Map<Value, String> results() {
        Map<Value, String> results = new LinkedHashMap<>();
        for (Value value : wanted) {
            Gradient total = total(value);
            if (total != null) {
                results.put(value, graph.full(total, value));
            }
        }
        return results;
    }
}
