// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.dims.Trace;
import io.onnxprune.ir.Program;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/**
 * What each value of a lowered program is made of, which decides where the program may be cut. The <em>stream</em> are the
 * floating-point values computed from both the content of the tokens and weights: all gradients run along them. Values
 * made of weights but not of tokens (rotary tables, position biases) are computed again in each segment that reads them, so
 * that gradients reach the weights there; all others (masks, sizes) are computed once and handed on.
 */
final class DataFlow {
    private final Program program;
    private final Trace trace;
    private final Set<Value> parameters;
    private final Set<Value> fromTokens = new HashSet<>();
    private final Set<Value> fromInputs = new HashSet<>();
    private final Set<Value> fromWeights = new HashSet<>();
    private final List<Op> streamOps = new ArrayList<>();

    /**
     * Follows {@code program} from its tokens to {@code logits}.
     *
     * @param parameters further constants that gradients are wanted for, beside all matrices
     */
    DataFlow(Program program, Trace trace, Value tokens, Value logits, Set<Value> parameters) {
        this.program = program;
        this.trace = trace;
        this.parameters = parameters;
        fromTokens.add(tokens);
        fromInputs.addAll(program.inputs());
        Set<Op> relevant = before(logits);
        for (Op op : program.ops()) {
            follow(op);
            if (relevant.contains(op) && op.outputs().stream().anyMatch(this::isStream)) {
                streamOps.add(op);
            }
        }
    }

    private void follow(Op op) {
        boolean onlyShape = op.node().is("Shape") || op.node().is("Size");
        boolean tokens = false;
        boolean inputs = false;
        boolean weights = false;
        for (Value input : op.inputs()) {
            if (input != null) {
                tokens |= !onlyShape && fromTokens.contains(input);
                inputs |= fromInputs.contains(input);
                weights |= isWeight(input);
            }
        }
        for (Value output : op.outputs()) {
            if (output != null && output.constant() == null) {
                if (tokens) {
                    fromTokens.add(output);
                }
                if (inputs) {
                    fromInputs.add(output);
                }
                if (weights && trace.dtype(output).isFloat()) {
                    fromWeights.add(output);
                }
            }
        }
    }

    private boolean isWeight(Value value) {
        return fromWeights.contains(value) || isMatrix(value.constant()) || parameters.contains(value);
    }

    private static boolean isMatrix(Tensor tensor) {
        boolean wide = tensor != null && tensor.rank() >= 2;
        for (int axis = 0; wide && axis < tensor.rank(); axis++) {
            wide = axis < tensor.rank() - 2 || tensor.dim(axis) > 1;
        }
        return wide;
    }

    private static Set<Op> before(Value result) {
        Set<Op> found = new HashSet<>();
        Deque<Value> open = new ArrayDeque<>(List.of(result));
        while (!open.isEmpty()) {
            Op op = open.pop().producer();
            if (op != null && found.add(op)) {
                op.inputs().stream().filter(input -> input != null).forEach(open::push);
            }
        }
        return found;
    }

    Program program() {
        return program;
    }

    Trace trace() {
        return trace;
    }

    /** The applications that compute the stream and that the logits depend on, in order of execution. */
    List<Op> streamOps() {
        return streamOps;
    }

    /** Whether the value is floating-point and made of tokens and weights. */
    boolean isStream(Value value) {
        return value != null && fromTokens.contains(value) && fromWeights.contains(value);
    }

    /** Whether an application of the stream reads a weight beside it. */
    boolean readsWeights(Op op) {
        return op.inputs().stream().anyMatch(input -> input != null && isWeight(input) && !isStream(input));
    }

    /** Whether the value differs between batches of one size. */
    boolean dependsOnTokens(Value value) {
        return fromTokens.contains(value);
    }

    /** Whether each segment computes the value for itself: it is made of constants, or of weights and not of tokens. */
    boolean isLocal(Value value) {
        return !fromInputs.contains(value) || fromWeights.contains(value) && !fromTokens.contains(value);
    }
}
