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
 * The dependencies of each value of a lowered program on tokens and weights, which decide where the program may be cut.
 * The <em>stream</em> consists of the floating-point values that depend on both the token ids and weights. All
 * gradients run along them. Values that depend on weights but not on tokens (rotary tables, position biases) are
 * recomputed in each segment that uses them, so that gradients reach the weights there. All other values (masks, sizes)
 * are computed once and passed to later segments.
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
     * Analyses {@code program} from its tokens to {@code logits}.
     *
     * @param contents the inputs whose contents differ from row to row: the tokens, and what is given beside them
     * @param parameters further constants whose gradients are needed, beside all matrices
     */
    DataFlow(Program program, Trace trace, Set<Value> contents, Value logits, Set<Value> parameters) {
        this.program = program;
        this.trace = trace;
        this.parameters = parameters;
        fromTokens.addAll(contents);
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
        boolean matrix = tensor != null && tensor.rank() >= 2;
        for (int axis = 0; matrix && axis < tensor.rank(); axis++) {
            matrix = axis < tensor.rank() - 2 || tensor.dim(axis) > 1;
        }
        return matrix;
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

    /** The operator applications that compute the stream and that the logits depend on, in order of execution. */
    List<Op> streamOps() {
        return streamOps;
    }

    /** Whether the value belongs to the stream: it is floating-point and depends on tokens and weights. */
    boolean isStream(Value value) {
        return value != null && fromTokens.contains(value) && fromWeights.contains(value);
    }

    /** Whether an application of the stream has a weight operand. */
    boolean usesWeights(Op op) {
        return op.inputs().stream().anyMatch(input -> input != null && isWeight(input) && !isStream(input));
    }

    /** Whether the value may differ between batches of equal size. */
    boolean dependsOnTokens(Value value) {
        return fromTokens.contains(value);
    }

    /**
     * Whether each segment computes the value itself. Such a value depends only on constants, or on weights and not on
     * tokens.
     */
    boolean isLocal(Value value) {
        return !fromInputs.contains(value) || fromWeights.contains(value) && !fromTokens.contains(value);
    }
}
