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
 * One application that is being differentiated: the gradients that come in at its results, and where those of its
 * operands go. A rule must use every gradient that comes in and give (or say that there is none) every one that is
 * wanted; what it leaves out is an error, never a silent zero.
 */
final class Derivation {
    private final Op op;
    private final BackwardGraph graph;
    private final Predicate<Value> wanted;
    private final Function<Value, Gradient> totals;
    private final BiConsumer<Value, Contribution> sink;
    private final Set<Op> inside;
    private final Set<Value> asked;
    private final Set<Integer> used = new HashSet<>();
    private final Set<Integer> given = new HashSet<>();

    /**
     * A derivation.
     *
     * @param wanted whether the gradient of a value leads to one that is asked for
     * @param totals the whole gradient of a result; null where none flows in
     * @param sink takes contributions to the gradient of a value
     * @param inside the applications that are being differentiated
     * @param asked the values whose gradients are results
     */
    Derivation(
            Op op,
            BackwardGraph graph,
            Predicate<Value> wanted,
            Function<Value, Gradient> totals,
            BiConsumer<Value, Contribution> sink,
            Set<Op> inside,
            Set<Value> asked) {
        this.op = op;
        this.graph = graph;
        this.wanted = wanted;
        this.totals = totals;
        this.sink = sink;
        this.inside = inside;
        this.asked = asked;
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
        return graph.read(op.input(position));
    }

    /** The name of the first result. */
    String out() {
        return graph.read(op.output(0));
    }

    /** The gradient of a result, perhaps still to be broadcast; null if nothing flows into it. */
    Gradient incoming(int output) {
        used.add(output);
        Value value = op.output(output);
        return value == null ? null : totals.apply(value);
    }

    /** The gradient of a result at its own shape; null if nothing flows into it. */
    String incomingFull(int output) {
        Gradient gradient = incoming(output);
        return gradient == null ? null : graph.full(gradient, op.output(output));
    }

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

    /** Adds what is left of a gradient of the result's shape when the broadcasting of the operand is undone. */
    void giveBroadcast(int input, Gradient gradient) {
        give(input, graph.sumToShape(gradient, output(), op.input(input)));
    }

    /** Adds to the gradient of a value before an operand, which takes the place of what would be given to the operand. */
    void giveBehind(int input, Value behind, String name) {
        given.add(input);
        if (wanted.test(behind)) {
            sink.accept(behind, Gradient.full(name));
        }
    }

    /** Says that the operand has gradient zero. */
    void giveNothing(int input) {
        given.add(input);
    }

    /** Whether the gradient of a value is itself asked for, rather than only passed through. */
    boolean asksFor(Value value) {
        return asked.contains(value);
    }

    /** The application that computes an operand, if it is one of those being differentiated, else null. */
    Op producer(int input) {
        Op producer = op.input(input).producer();
        return producer != null && inside.contains(producer) ? producer : null;
    }

    /** An axis counted from the front. */
    static int axis(long axis, int rank) {
        return Math.toIntExact(axis < 0 ? axis + rank : axis);
    }

    /** A failure of this application that says what has no derivative. */
    UserException unsupported(String what) {
        return new NoDerivativeException(
                "no gradient can be computed through node " + op.node().label() + ": " + what);
    }

    /** Checks that the rule left nothing out. */
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
