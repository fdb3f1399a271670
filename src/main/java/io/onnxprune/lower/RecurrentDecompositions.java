// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Program.Value;
import java.util.List;
import java.util.Map;

/**
 * Decompositions of operators with a state that is carried from token to token. A state that is an input of the graph
 * is taken to be zero, as before the first token.
 */
final class RecurrentDecompositions {
    private RecurrentDecompositions() {}

    static void register(Decompositions.Table table) {
        table.onnx(LinearAttention::lower, "LinearAttention");
        table.contrib(LinearAttention::lower, "LinearAttention");
        table.onnx(RecurrentDecompositions::causalConvolution, "CausalConvWithState");
        table.contrib(RecurrentDecompositions::causalConvolution, "CausalConvWithState");
        table.onnx(RecurrentDecompositions::tensorScatter, "TensorScatter");
    }

    /** The name of the state before the first token; empty when it is zero. */
    static String initialState(RewriteContext c, int position) {
        Value state = c.operand(position);
        boolean carried = state == null || state.producer() == null && state.constant() == null;
        return carried ? "" : c.in(position);
    }

    /** Whether the states behind the last tokens are requested: for each of them, not only for the last one. */
    static boolean keepsStates(RewriteContext c) {
        boolean several = c.node().intAttribute("state_window", 0) != 0;
        return several && (c.wants(1) || !initialState(c, 3).isEmpty());
    }

    /**
     * CausalConvWithState of opset 27 and of ONNX Runtime (input {@code [B, C, T]}, weight {@code [C, 1, k]}, bias
     * {@code [C]}, state {@code [B, C, p]}) with p = (k - 1) · dilation: y_t = Σ_j w_j ⊙ x_(t - p + j · dilation) +
     * bias, then an activation. With {@code channels_last} the input is {@code [B, T, ..]} with the channels in all axes
     * from the third on. Output 1 is the last p inputs. Convolutions of images are kept.
     */
    private static boolean causalConvolution(RewriteContext c) {
        if (c.node().intAttribute("ndim", 1) != 1 || keepsStates(c)) {
            return false;
        }
        boolean last = c.node().intAttribute("channels_last", 0) != 0;
        int axis = last ? 1 : 2;
        long channels = c.extent(1, 0);
        long taps = c.extent(1, 2);
        long dilation = c.node().intAttribute("dilation", 1);
        long before = (taps - 1) * dilation;
        boolean merged = last && c.rank(0) > 3;
        String x = extended(c, merged ? c.reshape(c.in(0), 0, 0, channels) : c.in(0), axis, before, channels);
        long[] aligned = last ? new long[] {channels} : new long[] {channels, 1};
        String sum = "";
        for (long tap = 0; tap < taps; tap++) {
            long from = tap * dilation;
            String part = c.slice(x, axis, from, tap == taps - 1 ? Integer.MAX_VALUE : from - before);
            String product = c.add("Mul", part, c.reshape(c.slice(c.in(1), 2, tap, tap + 1), aligned));
            sum = c.plus(product, sum);
        }
        if (c.has(2)) {
            sum = c.add("Add", sum, c.reshape(c.in(2), aligned));
        }
        String activation = c.node().textAttribute("activation", "none");
        String out = activation.equals("none") ? sum : c.add("Mul", sum, c.add("Sigmoid", sum));
        c.result(0, merged ? c.add("Reshape", out, c.add("Shape", c.in(0))) : out);
        if (c.wants(1)) {
            String state = before == 0 ? c.slice(x, axis, 0, 0) : c.slice(x, axis, -before, Integer.MAX_VALUE);
            String batch = c.unsqueeze(Ranges.extent(c, c.in(0), 0), 0);
            c.result(1, merged ? c.add("Reshape", state, stateShape(c, batch, before)) : state);
        }
        return true;
    }

    private static String stateShape(RewriteContext c, String batch, long before) {
        String channels = c.add("Shape", List.of(c.in(0)), Map.of("start", new Attribute.Int(2)));
        return c.concat(0, batch, c.graph().ints(before), channels);
    }

    /** The input behind its state, or behind as many zeros. */
    private static String extended(RewriteContext c, String x, int axis, long before, long channels) {
        if (before == 0) {
            return x;
        }
        String state = initialState(c, 3);
        if (state.isEmpty()) {
            long[] pads = new long[6];
            pads[axis] = before;
            return c.add("Pad", x, c.graph().ints(pads));
        }
        boolean merged = axis == 1 && c.rank(3) > 3;
        return c.concat(axis, merged ? c.reshape(state, 0, 0, channels) : state, x);
    }

    /**
     * TensorScatter of opset 24 (cache, update, write indices {@code [B]}): the update replaces the positions of the
     * cache from the write index of its row on, modulo the length of the cache in the mode {@code circular}.
     */
    private static boolean tensorScatter(RewriteContext c) {
        int rank = c.rank(0);
        int axis = Math.floorMod((int) c.node().intAttribute("axis", -2), rank);
        long[] row = new long[rank];
        long[] position = new long[rank];
        java.util.Arrays.fill(row, 1);
        java.util.Arrays.fill(position, 1);
        row[0] = -1;
        position[axis] = -1;
        String indices = c.reshape(Ranges.upTo(c, Ranges.extent(c, c.in(1), axis)), position);
        if (c.has(2)) {
            indices = c.add("Add", indices, c.reshape(c.cast(c.in(2), DType.INT64), row));
        }
        if (c.node().textAttribute("mode", "linear").equals("circular")) {
            indices = c.add("Mod", indices, Ranges.extent(c, c.in(0), axis));
        }
        String expanded = c.add("Expand", indices, c.add("Shape", c.in(1)));
        Map<String, Attribute> along = Map.of("axis", new Attribute.Int(axis));
        c.result(0, c.add("ScatterElements", List.of(c.in(0), expanded, c.in(1)), along));
        return true;
    }
}
