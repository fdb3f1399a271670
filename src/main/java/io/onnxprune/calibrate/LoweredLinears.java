// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.dims.Trace;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** Finds the linear layers of a lowered program. */
final class LoweredLinears {
    private static final Set<String> SAME_VALUES =
            Set.of("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast");
    private static final Set<String> SAME_WEIGHTS =
            Set.of("Cast", "Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze");

    private LoweredLinears() {}

    /** The linear layers of the stream, in order of execution. */
    static List<LoweredLinear> of(DataFlow flow) {
        return List.copyOf(byOp(flow).values());
    }

    /** The linear layers of the stream by the application that computes each, in order of execution. */
    static Map<Op, LoweredLinear> byOp(DataFlow flow) {
        Map<Op, LoweredLinear> linears = new LinkedHashMap<>();
        for (Op op : flow.streamOps()) {
            boolean matrixProduct =
                    op.node().is("MatMul") || op.node().is("Gemm") && op.node().intAttribute("transA", 0) == 0;
            if (matrixProduct && flow.isStream(op.input(0)) && !flow.isStream(op.input(1))) {
                int inputs = width(flow.trace(), op.input(0));
                int outputs = width(flow.trace(), op.output(0));
                if (flow.isLocal(op.input(1)) && inputs > 0 && outputs > 0) {
                    linears.put(
                            op,
                            new LoweredLinear(
                                    op.node().label(),
                                    initializer(op.input(1)).name(),
                                    new Activation(
                                            source(flow, op.input(0), inputs).name(), inputs),
                                    new Activation(op.output(0).name(), outputs)));
                }
            }
        }
        return linears;
    }

    /**
     * The constant behind a matrix that is cast or transposed; the matrix itself if it is computed from several
     * constants.
     */
    private static Value initializer(Value matrix) {
        Value current = matrix;
        while (current.constant() == null) {
            Op op = current.producer();
            if (op == null || !SAME_WEIGHTS.contains(op.node().op())) {
                return matrix;
            }
            current = op.input(0);
        }
        return current;
    }

    /** The earliest value with the same rows, so that layers behind different reshapes share statistics. */
    private static Value source(DataFlow flow, Value value, int width) {
        Value current = value;
        while (current.producer() != null
                && SAME_VALUES.contains(current.producer().node().op())
                && flow.isStream(current.producer().input(0))
                && width(flow.trace(), current.producer().input(0)) == width) {
            current = current.producer().input(0);
        }
        return current;
    }

    /** The size of the last axis, or 0 where it varies or is unknown. */
    private static int width(Trace trace, Value value) {
        long[] first = trace.shape(value, 0);
        long[] second = trace.shape(value, 1);
        boolean known = first != null && second != null && first.length > 0 && first.length == second.length;
        return known && first[first.length - 1] == second[second.length - 1] ? (int) first[first.length - 1] : 0;
    }
}
