// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import java.util.Arrays;
import java.util.List;

/**
 * Rules of operators with a state that is carried from token to token: linear attention, causal convolution and caches
 * of a fixed length. They are operators of opset 24 and 27, or of ONNX Runtime.
 */
final class RecurrentRules {
    private RecurrentRules() {}

    static void register(OperatorRules.Table table) {
        table.onnx(RecurrentRules::linearAttention, "LinearAttention");
        table.contrib(RecurrentRules::linearAttention, "LinearAttention");
        table.onnx(RecurrentRules::causalConvolution, "CausalConvWithState");
        table.contrib(RecurrentRules::causalConvolution, "CausalConvWithState");
        table.onnx(RecurrentRules::tensorScatter, "TensorScatter");
    }

    /**
     * LinearAttention (query {@code [B, T, Hq·dk]}, key {@code [B, T, Hk·dk]}, value {@code [B, T, H·dv]}, state
     * {@code [B, H, dk, dv]}, decay {@code [B, T, H]} or {@code [B, T, H·dk]}, beta {@code [B, T, H]} or {@code [B, T,
     * 1]}). There is a state for each value head. Neighbouring value heads share a key head, and a query head if there
     * are fewer; if there are more, neighbouring query heads share a state.
     */
    private static void linearAttention(RuleContext c) {
        long queries = c.node().intAttribute("q_num_heads", 0);
        long states = c.node().intAttribute("kv_num_heads", 0);
        long size = c.in(0)[2].size(0) / queries;
        Dim keys = heads(c, c.in(1)[2].size(0) / size);
        Dim state = Dim.product(List.of(keys, heads(c, states / keys.size(0))));
        Dim query = queries >= states ? Dim.product(List.of(state, heads(c, queries / states))) : heads(c, queries);
        if (queries < states) {
            c.unify(state, Dim.product(List.of(query, heads(c, states / queries))));
        }
        Dim keySize = c.fresh(size);
        Dim valueSize = c.fresh(c.in(2)[2].size(0) / states);
        if (c.node().floatAttribute("scale", 0) == 0) {
            c.pin(keySize, "the attention scale follows from the head size");
        }
        c.unify(c.in(0)[2], by(query, keySize));
        c.unify(c.in(1)[2], by(keys, keySize));
        c.unify(c.in(2)[2], by(state, valueSize));
        c.unify(c.out(0)[2], by(queries >= states ? query : state, valueSize));
        state(c, c.in(3), state, keySize, valueSize);
        state(c, c.out(1), state, keySize, valueSize);
        for (int gate = 4; gate <= 5; gate++) {
            Dim[] dims = c.in(gate);
            if (dims != null && dims[2].size(0) == states) {
                c.unifyBroadcast(dims[2], state);
            } else if (dims != null && !dims[2].isOne()) {
                c.unify(dims[2], by(state, keySize));
            }
        }
        c.unifyBroadcast(c.in(0)[0], c.out(0)[0]);
        c.unifyBroadcast(c.in(0)[1], c.out(0)[1]);
        c.requireAttribute("q_num_heads", -1, query);
        c.requireAttribute("kv_num_heads", -1, state);
        c.distribution(List.of(queries >= states ? query : state), Dim.ONE);
        c.contraction(keySize, false);
    }

    private static Dim heads(RuleContext c, long count) {
        return count == 1 ? Dim.ONE : c.fresh(count);
    }

    private static Dim by(Dim heads, Dim size) {
        return Dim.product(List.of(heads, size));
    }

    /** A state {@code [B, H, dk, dv]}, or the last ones, {@code [W, B, H, dk, dv]}. */
    private static void state(RuleContext c, Dim[] dims, Dim heads, Dim keySize, Dim valueSize) {
        if (dims != null && dims.length >= 4) {
            c.unifyBroadcast(dims[dims.length - 3], heads);
            c.unifyBroadcast(dims[dims.length - 2], keySize);
            c.unifyBroadcast(dims[dims.length - 1], valueSize);
        }
    }

    /**
     * CausalConvWithState (input {@code [B, C, ..]}, weight {@code [C, 1, ..]}, bias {@code [C]}, state {@code [B, C,
     * ..]}): every channel has a convolution of its own. With {@code channels_last} the channels of input and state are
     * the axes behind the sequence.
     */
    private static void causalConvolution(RuleContext c) {
        boolean last = c.node().intAttribute("channels_last", 0) != 0;
        Dim[] weight = c.in(1);
        Dim channels = weight[0];
        int window = c.node().intAttribute("state_window", 0) == 0 ? 0 : 1;
        channels(c, c.in(0), 0, channels, last);
        channels(c, c.out(0), 0, channels, last);
        channels(c, c.in(3), window, channels, last);
        channels(c, c.out(1), window, channels, last);
        c.unifyAll(c.in(0), c.out(0));
        if (c.in(2) != null) {
            c.unifyBroadcast(c.in(2)[0], channels);
        }
        for (int axis = 2; axis < weight.length; axis++) {
            c.pin(weight[axis], "taps of a convolution");
        }
    }

    private static void channels(RuleContext c, Dim[] dims, int window, Dim channels, boolean last) {
        if (dims == null) {
            return;
        }
        Dim[] rest = Arrays.copyOfRange(dims, window, dims.length);
        c.unifyBroadcast(last ? Dim.product(List.of(rest).subList(2, rest.length)) : rest[1], channels);
    }

    /**
     * TensorScatter (cache {@code [B, .., M, ..]}, update {@code [B, .., T, ..]}, write indices {@code [B]}): the update
     * replaces positions of the cache along {@code axis}.
     */
    private static void tensorScatter(RuleContext c) {
        Dim[] cache = c.in(0);
        Dim[] update = c.in(1);
        Dim[] out = c.out(0);
        int sequence = RuleContext.axis(c.node().intAttribute("axis", -2), cache.length);
        c.unifyAll(cache, out);
        for (int axis = 0; axis < cache.length; axis++) {
            if (axis != sequence) {
                c.unifyBroadcast(update[axis], out[axis]);
            }
        }
        c.pin(cache[sequence], "positions of a cache");
        c.pin(update[sequence], "positions of a cache");
    }
}
