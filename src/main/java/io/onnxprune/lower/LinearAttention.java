// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.ir.DType;

/**
 * The decomposition of linear attention, for all tokens of a row at once.
 *
 * <p>The operator (LinearAttention of opset 27 and of ONNX Runtime) has a state S of shape {@code [dk, dv]} per head and
 * computes token by token, with the decay g and the rate β in the rules that have them,
 *
 * <pre>
 * S_t = exp(g_t) S_(t-1) + k_t u_tᵀ,   u_t = β_t (v_t - (exp(g_t) S_(t-1))ᵀ k_t),   o_t = scale · S_tᵀ q_t
 * </pre>
 *
 * where u_t = v_t in the rules {@code linear} and {@code gated}. With the decays summed up, G_t = g_1 + .. + g_t, and the
 * similarity a_tj(x) = Σ_c x_tc k_jc exp(G_tc - G_jc) of the tokens j ≤ t, this is
 *
 * <pre>
 * o_t = scale · Σ_(j≤t) a_tj(q) u_j,   (I + L) U = βV,   L_tj = a_tj(βk) for j &lt; t and else 0
 * </pre>
 *
 * <p>The inverse of I + L is built from the inverses of its diagonal blocks, whose size doubles in each step: {@code
 * [[A, 0], [B, C]]⁻¹ = [[A⁻¹, 0], [-C⁻¹ B A⁻¹, C⁻¹]]}.
 */
final class LinearAttention {
    private final RewriteContext c;
    private final long heads;
    private final long size;
    private final long valueSize;
    private final long states;
    private final boolean decays;
    /** Whether each channel of a key has a decay of its own. */
    private final boolean perChannel;

    private final boolean corrects;

    /** Number of tokens, an int64 scalar. */
    private final String length;

    /** Keys {@code [B, H, T, dk]}. */
    private final String keys;

    /** Decays summed up, {@code [B, H, T, dk]} or {@code [B, H, T, 1]}; empty without decay. */
    private final String decay;

    /** exp(G_t - G_j), {@code [B, H, T, T]}, or {@code [B, H, T, dk, T]} where each key channel has its own. */
    private final String factors;

    private LinearAttention(RewriteContext c, long states) {
        this.c = c;
        this.states = states;
        this.size = c.extent(0, 2) / queryHeads();
        this.heads = Math.max(states, queryHeads());
        this.valueSize = c.extent(2, 2) / states;
        String rule = c.node().textAttribute("update_rule", "gated_delta");
        this.decays = rule.startsWith("gated");
        this.corrects = rule.endsWith("delta");
        this.length = Ranges.extent(c, c.in(0), 1);
        this.keys = split(1, c.extent(1, 2) / size, size);
        this.perChannel = decays && c.extent(4, 2) != states;
        this.decay = decays
                ? c.add(
                        "CumSum",
                        split(4, states, perChannel ? size : 1),
                        c.graph().index(2))
                : "";
        this.factors = decays ? factors() : "";
    }

    /**
     * LinearAttention (query {@code [B, T, Hq·dk]}, key {@code [B, T, Hk·dk]}, value {@code [B, T, H·dv]}, state {@code
     * [B, H, dk, dv]}, decay {@code [B, T, H]} or {@code [B, T, H·dk]}, beta {@code [B, T, H]} or {@code [B, T, 1]}).
     * Output 1 is the state behind the last token.
     */
    static boolean lower(RewriteContext c) {
        long states = c.node().intAttribute("kv_num_heads", 0);
        if (RecurrentDecompositions.keepsStates(c)) {
            return false;
        }
        new LinearAttention(c, states).append();
        return true;
    }

    private long queryHeads() {
        return c.node().intAttribute("q_num_heads", 0);
    }

    private void append() {
        String queries = c.scaled(split(0, queryHeads(), size), AttentionDecompositions.scale(c, size));
        String initial = RecurrentDecompositions.initialState(c, 3);
        String updates = updates(initial);
        String out = c.add("MatMul", similarity(queries, visible("LessOrEqual")), updates);
        if (!initial.isEmpty()) {
            out = c.add("Add", out, c.add("MatMul", decayed(queries), repeated(initial, states, valueSize)));
        }
        c.result(0, Heads.merge(c, out, heads * valueSize));
        if (c.wants(1)) {
            c.result(1, last(updates, initial));
        }
    }

    /** An operand {@code [B, T, n·d]} as {@code [B, H, T, d]}; neighbouring heads share one of the n. */
    private String split(int operand, long count, long channels) {
        return repeated(Heads.of(c, c.in(operand), count, channels).headFirst(c), count, channels);
    }

    private String repeated(String x, long count, long channels) {
        if (count == heads) {
            return x;
        }
        String column = c.unsqueeze(x, 2);
        String wide = c.add("Expand", column, c.graph().ints(1, 1, heads / count, 1, 1));
        return c.reshape(wide, 0, heads, -1, channels);
    }

    /** A mask of the keys {@code [T, T]} that are before the query, or not later. */
    private String visible(String comparison) {
        return c.shared("tokens " + comparison + " " + length, () -> {
            String range = Ranges.upTo(c, length);
            return c.add(comparison, range, c.unsqueeze(range, 1));
        });
    }

    private String factors() {
        String future = Ranges.causal(c, length, length, -1);
        if (!perChannel) {
            String differences = c.add("Sub", decay, c.transpose(decay, 0, 1, 3, 2));
            return c.add("Exp", c.add("Add", differences, future));
        }
        String rows = c.unsqueeze(decay, 4);
        String columns = c.unsqueeze(c.transpose(decay, 0, 1, 3, 2), 2);
        return c.add("Exp", c.add("Add", c.add("Sub", rows, columns), c.unsqueeze(future, 1)));
    }

    /** The similarity of x {@code [B, H, T, dk]} and the keys, {@code [B, H, T, T]}, where the mask is true. */
    private String similarity(String x, String visible) {
        String transposed = c.transpose(keys, 0, 1, 3, 2);
        String products;
        if (perChannel) {
            String own = c.add("Mul", factors, c.unsqueeze(transposed, 2));
            products = c.add(
                    "Squeeze",
                    c.add("MatMul", c.unsqueeze(x, 3), own),
                    c.graph().ints(3));
        } else {
            products = c.add("MatMul", x, transposed);
            products = decays ? c.add("Mul", products, factors) : products;
        }
        return c.add("Where", visible, products, c.scalar(0));
    }

    /** x {@code [B, H, T, dk]} times exp(G_t). */
    private String decayed(String x) {
        return decays ? c.add("Mul", x, c.add("Exp", decay)) : x;
    }

    /** U {@code [B, H, T, dv]}, what the tokens add to the state. */
    private String updates(String initial) {
        String values = split(2, states, valueSize);
        if (!corrects) {
            return values;
        }
        if (!initial.isEmpty()) {
            values = c.add("Sub", values, c.add("MatMul", decayed(keys), repeated(initial, states, valueSize)));
        }
        String rates = split(5, c.extent(5, 2), 1);
        String lower = similarity(c.add("Mul", keys, rates), visible("Less"));
        return c.add("MatMul", inverse(lower), c.add("Mul", values, rates));
    }

    /** The inverse of I + L. */
    private String inverse(String lower) {
        String identity = c.shared("identity " + length, () -> c.cast(visible("Equal"), DType.FLOAT));
        String result = identity;
        for (long block = 1; block < c.length(); block *= 2) {
            String below = c.add("Where", below(block), lower, c.scalar(0));
            String change = block == 1 ? below : c.add("MatMul", c.add("MatMul", result, below), result);
            result = c.add("Sub", result, change);
        }
        return result;
    }

    /** A mask of the lower left quarters of diagonal blocks of twice the size {@code block}, {@code [T, T]}. */
    private String below(long block) {
        return c.shared("quarters " + block + " " + length, () -> {
            String range = Ranges.upTo(c, length);
            String small = c.add("Div", range, c.graph().index(block));
            String large = c.add("Div", range, c.graph().index(2 * block));
            return c.add(
                    "And", c.add("Less", small, c.unsqueeze(small, 1)), c.add("Equal", large, c.unsqueeze(large, 1)));
        });
    }

    /** The state behind the last token: Σ_j exp(G_T - G_j) k_j u_jᵀ, and the initial state with all decays. */
    private String last(String updates, String initial) {
        String total = decays ? c.slice(decay, 2, -1, Integer.MAX_VALUE) : "";
        String kept = decays ? c.add("Mul", keys, c.add("Exp", c.add("Sub", total, decay))) : keys;
        String state = c.add("MatMul", c.transpose(kept, 0, 1, 3, 2), updates);
        if (!initial.isEmpty()) {
            String first = repeated(initial, states, valueSize);
            String left = decays ? c.add("Mul", first, c.add("Exp", c.transpose(total, 0, 1, 3, 2))) : first;
            state = c.add("Add", state, left);
        }
        String step = c.graph().ints(heads / states);
        return heads == states
                ? state
                : c.add(
                        "Slice",
                        state,
                        c.graph().ints(0),
                        c.graph().ints(heads),
                        c.graph().ints(1),
                        step);
    }
}
