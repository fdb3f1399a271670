// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.calibrate.Partition.Piece;
import io.onnxprune.dims.Trace;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Program.Value;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/**
 * Checks whether the output of a linear layer is only added to the output of its piece, so that a change of the layer's
 * output changes the output of the piece by the same amount, element by element.
 */
final class AdditionPath {
    private static final Set<String> SAME_VALUES =
            Set.of("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast");

    private final Piece piece;
    private final Trace trace;
    private final Set<Op> inside;

    private AdditionPath(Piece piece, Trace trace) {
        this.piece = piece;
        this.trace = trace;
        this.inside = new HashSet<>(piece.ops());
    }

    /**
     * The reason why a change of the output of {@code layer} is not the same change of the output of {@code piece}, as
     * a clause about the layer; null if it is.
     */
    static String obstacle(Op layer, Piece piece, Trace trace) {
        return new AdditionPath(piece, trace).obstacle(layer);
    }

    private String obstacle(Op layer) {
        if (layer.node().floatAttribute("alpha", 1) != 1) {
            return "it scales its result";
        }
        Value current = layer.output(0);
        while (current != piece.output()) {
            List<Use> uses = current.uses().stream()
                    .filter(use -> inside.contains(use.op()))
                    .toList();
            for (Use use : uses) {
                if (!isAddition(use, current)) {
                    return "its result goes through node " + use.op().node().label()
                            + ", which does more than add to the residual stream";
                }
            }
            if (uses.isEmpty()) {
                return "its result does not reach the residual stream";
            }
            if (uses.size() > 1) {
                return "its result is used " + uses.size() + " times before the residual stream, by node "
                        + uses.get(uses.size() - 1).op().node().label() + " among others";
            }
            current = uses.get(0).op().output(0);
        }
        return hasWidth(current, layer.output(0)) ? null : "the residual stream has another width than its result";
    }

    private boolean isAddition(Use use, Value operand) {
        Value result = use.op().output(0);
        String type = use.op().node().op();
        if (!use.op().node().domain().isEmpty() || !trace.dtype(result).isFloat()) {
            return false;
        }
        if (type.equals("Add") || type.equals("Sum") || type.equals("Sub") && use.input() == 0) {
            return hasShape(result, operand);
        }
        return SAME_VALUES.contains(type) && use.input() == 0;
    }

    /** Whether the result has the shape of an operand, so that the operand is not broadcast. */
    private boolean hasShape(Value result, Value operand) {
        for (int run = 0; run < 2; run++) {
            if (!Arrays.equals(trace.shape(result, run), trace.shape(operand, run))) {
                return false;
            }
        }
        return trace.isKnown(result);
    }

    private boolean hasWidth(Value stream, Value result) {
        long[] one = trace.shape(stream, 0);
        long[] other = trace.shape(result, 0);
        return one != null && other != null && one[one.length - 1] == other[other.length - 1];
    }
}
