// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import java.util.HashSet;
import java.util.Set;
import java.util.function.BiConsumer;
import java.util.function.Function;
import java.util.function.Predicate;

/**
 * One operator application that is being differentiated: the incoming gradients of its results, and where the
 * gradients of its operands go. A rule must use every incoming gradient and give every wanted one, or declare that it
 * is zero. A gradient that is left out is an error, never a silent zero.
 */
final class Derivation {
    private final Op op;
    private final BackwardGraph graph;
    private final Predicate<Value> wanted;
    private final Function<Value, Gradient> totals;
    private final BiConsumer<Value, Contribution> sink;
    private final Set<Op> inside;
    private final Set<Value> requested;
    private final Set<Integer> used = new HashSet<>();
    private final Set<Integer> given = new HashSet<>();

    /**
     * Creates a derivation.
     *
     * @param wanted whether the gradient of a value is needed for a requested one
     * @param totals the total gradient of a result; null when none flows into it
     * @param sink receives contributions to the gradient of a value
     * @param inside the operator applications that are being differentiated
     * @param requested the values whose gradients are requested
     */
    Derivation(
            Op op,
            BackwardGraph graph,
            Predicate<Value> wanted,
            Function<Value, Gradient> totals,
            BiConsumer<Value, Contribution> sink,
            Set<Op> inside,
            Set<Value> requested) {
        this.op = op;
        this.graph = graph;
        this.wanted = wanted;
        this.totals = totals;
        this.sink = sink;
        this.inside = inside;
        this.requested = requested;
    }

    BackwardGraph graph() {
        return graph;
    }

    Op op() {
        return op;
    }

    Node node() {
        return op.node();
    }

    Value input(int position) {
        return op.input(position);
    }

    Value output() {
        return op.output(0);
    }

    /** The name of an operand, in the precision of gradients. */
    String in(int position) {
        return graph.operand(op.input(position));
    }

    /** The name of the first result. */
    String out() {
        return graph.operand(op.output(0));
    }

    /** The gradient of a result, possibly not yet broadcast to its shape; null when none flows into it. */
    Gradient incoming(int output) {
        used.add(output);
        Value value = op.output(output);
        return value == null ? null : totals.apply(value);
    }

    /** The gradient of a result, expanded to its shape; null when none flows into it. */
    String incomingFull(int output) {
        Gradient gradient = incoming(output);
        return gradient == null ? null : graph.full(gradient, op.output(output));
    }

    /** Whether the gradient of an operand is needed. */
    boolean wants(int input) {
        Value value = op.input(input);
        return value != null && wanted.test(value);
    }

    /** Adds to the gradient of an operand. */
    void give(int input, Contribution contribution) {
        given.add(input);
        sink.accept(op.input(input), contribution);
    }

    /** Adds a tensor of the operand's shape to its gradient. */
    void give(int input, String name) {
        give(input, Gradient.full(name));
    }

    /** Adds a gradient of the result's shape, summed over the axes on which the operand was broadcast. */
    void giveBroadcast(int input, Gradient gradient) {
        give(input, graph.sumToShape(gradient, output(), op.input(input)));
    }

    /**
     * Adds to the gradient of {@code source}, from which the operand is computed, instead of to the operand's gradient.
     */
    void giveToSource(int input, Value source, String name) {
        given.add(input);
        if (wanted.test(source)) {
            sink.accept(source, Gradient.full(name));
        }
    }

    /** Declares that the operand's gradient is zero. */
    void giveZero(int input) {
        given.add(input);
    }

    /** Whether the gradient of a value is itself requested, and not only needed for another one. */
    boolean isRequested(Value value) {
        return requested.contains(value);
    }

    /** The producer of an operand when it is being differentiated too, else null. */
    Op producer(int input) {
        Op producer = op.input(input).producer();
        return producer != null && inside.contains(producer) ? producer : null;
    }

    /** The index of an axis counted from the front. */
    static int axis(long axis, int rank) {
        return Math.toIntExact(axis < 0 ? axis + rank : axis);
    }

    /** An exception that names this node and the missing derivative. */
    UserException unsupported(String what) {
        return new NoDerivativeException(
                "no gradient can be computed through node " + op.node().label() + ": " + what);
    }

    /** Checks that the rule used all incoming gradients and gave all wanted ones. */
    void check() {
        for (int i = 0; i < op.outputs().size(); i++) {
            Value value = op.output(i);
            if (value != null && !used.contains(i) && totals.apply(value) != null) {
                throw unsupported("its output " + i + " has no derivative");
            }
        }
        for (int i = 0; i < op.inputs().size(); i++) {
            if (wants(i) && !given.contains(i)) {
                throw unsupported("it has no derivative with respect to its input " + i);
            }
        }
    }
}
