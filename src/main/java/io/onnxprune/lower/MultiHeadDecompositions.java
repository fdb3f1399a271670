// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.ir.DType;
import java.util.List;

/** ONNX Runtime's attention with as many key as query heads and its masks, for whole rows without a past. */
final class MultiHeadDecompositions {
    private static final float HIDDEN = -10000;

    private MultiHeadDecompositions() {}

    static void register(Decompositions.Table table) {
        table.contrib(MultiHeadDecompositions::multiHead, "MultiHeadAttention");
        table.contrib(MultiHeadDecompositions::merged, "Attention");
    }

    /**
     * Operands of one attention.
     *
     * @param count how many heads
     * @param size channels of a head of query and key
     * @param valueSize channels of a head of value
     */
    private record Operands(Heads query, Heads key, Heads value, long count, long size, long valueSize) {}

    /**
     * com.microsoft.MultiHeadAttention (query, key, value, bias, key padding mask, attention bias, past key, past value):
     * query, key and value are {@code [B, S, N·d]}; or keys and values have their heads as an axis already,
     * {@code [B, N, T, d]}; or query holds all, {@code [B, S, N, 3, d]}; or key holds keys and values,
     * {@code [B, T, N, 2, d]}.
     */
    private static boolean multiHead(RewriteContext s) {
        boolean packed = s.rank(0) == 5;
        if (!packed && !s.has(1) || s.has(4) && s.rank(4) > 3) {
            return false;
        }
        Operands operands = packed ? packed(s) : separate(s);
        String out = attend(s, operands, 4);
        s.result(0, out);
        if (s.wants(1)) {
            s.result(1, operands.key.headFirst(s));
        }
        if (s.wants(2)) {
            s.result(2, operands.value.headFirst(s));
        }
        return true;
    }

    private static Operands packed(RewriteContext s) {
        long count = s.node().intAttribute("num_heads", 0);
        long size = s.extent(0, 4);
        List<String> parts = s.split(s.in(0), 3, 1, 1, 1);
        return biased(
                s,
                new Operands(
                        Heads.of(s, parts.get(0), count, size),
                        Heads.of(s, parts.get(1), count, size),
                        Heads.of(s, parts.get(2), count, size),
                        count,
                        size,
                        size));
    }

    private static Operands separate(RewriteContext s) {
        long count = s.node().intAttribute("num_heads", 0);
        long size = s.extent(0, 2) / count;
        Heads query = Heads.of(s, s.in(0), count, size);
        if (s.rank(1) == 5) {
            List<String> parts = s.split(s.in(1), 3, 1, 1);
            Heads key = Heads.of(s, parts.get(0), count, size);
            Heads value = Heads.of(s, parts.get(1), count, size);
            return biased(s, new Operands(query, key, value, count, size, size));
        }
        if (s.rank(1) == 4) {
            Heads key = new Heads(s.in(1), true);
            Heads value = new Heads(s.in(2), true);
            return biased(s, new Operands(query, key, value, count, size, s.extent(2, 3)));
        }
        long valueSize = s.extent(2, 2) / count;
        Heads key = Heads.of(s, s.in(1), count, size);
        Heads value = Heads.of(s, s.in(2), count, valueSize);
        return biased(s, new Operands(query, key, value, count, size, valueSize));
    }

    /** Adds the parts of the projections' bias; keys and values that came with their heads apart have none. */
    private static Operands biased(RewriteContext s, Operands o) {
        if (!s.has(3)) {
            return o;
        }
        long width = o.count * o.size;
        List<String> parts = s.split(s.in(3), 0, width, width, o.count * o.valueSize);
        return new Operands(
                biased(s, o.query, parts.get(0), o.count, o.size),
                biased(s, o.key, parts.get(1), o.count, o.size),
                biased(s, o.value, parts.get(2), o.count, o.valueSize),
                o.count,
                o.size,
                o.valueSize);
    }

    private static Heads biased(RewriteContext s, Heads heads, String bias, long count, long size) {
        return heads.first() ? heads : heads.with(s.add("Add", heads.value(), s.reshape(bias, count, size)));
    }

    /**
     * com.microsoft.Attention (input, weights, bias, mask index, past, attention bias): projects with one weight
     * {@code [D, q + k + v]}, then attends. Result 1 are keys and values, {@code [2, B, N, T, d]}.
     */
    private static boolean merged(RewriteContext s) {
        if (s.has(3) && s.rank(3) > 3 || s.node().intAttribute("do_rotary", 0) != 0) {
            return false;
        }
        long count = s.node().intAttribute("num_heads", 0);
        long width = s.extent(1, 1);
        List<Long> given = s.node().intsAttribute("qkv_hidden_sizes");
        long[] sizes = given == null || given.isEmpty()
                ? new long[] {width / 3, width / 3, width / 3}
                : given.stream().mapToLong(Long::longValue).toArray();
        String projected = s.plus(s.add("MatMul", s.in(0), s.in(1)), s.in(2));
        List<String> parts = s.split(projected, -1, sizes);
        long size = sizes[0] / count;
        long valueSize = sizes[2] / count;
        Operands operands = new Operands(
                Heads.of(s, parts.get(0), count, size),
                Heads.of(s, parts.get(1), count, size),
                Heads.of(s, parts.get(2), count, valueSize),
                count,
                size,
                valueSize);
        s.result(0, attend(s, operands, 3));
        if (s.wants(1)) {
            String key = s.unsqueeze(operands.key.headFirst(s), 0);
            s.result(1, s.concat(0, key, s.unsqueeze(operands.value.headFirst(s), 0)));
        }
        return true;
    }

    /** Attends under the site's masks; {@code mask} is the position of the padding mask, and 5 that of the bias. */
    private static String attend(RewriteContext s, Operands o, int mask) {
        ScaledDotProduct attention =
                new ScaledDotProduct(s, o.count, o.count).scale(AttentionDecompositions.scale(s, o.size));
        String queries = Ranges.extent(s, s.in(0), 1);
        boolean apart = mask == 4 && s.has(1);
        String keys = apart ? Ranges.extent(s, s.in(1), s.rank(1) == 4 ? 2 : 1) : queries;
        if (s.has(mask)) {
            float hidden = s.node().floatAttribute("mask_filter_value", HIDDEN);
            attention.bias(s.shared(
                    "padding " + s.in(mask) + " " + hidden + " " + keys,
                    () -> Ranges.additive(s, seen(s, mask, keys), hidden)));
        }
        if (s.node().intAttribute("unidirectional", 0) != 0) {
            attention.bias(Ranges.causal(s, queries, keys, -1));
        }
        attention.bias(s.in(5));
        if (mask == 4 && s.wants(3)) {
            attention.keepSteps();
        }
        String out = attention.append(o.query.headFirst(s), o.key.transposed(s), o.value.headFirst(s));
        if (mask == 4) {
            s.result(3, attention.biased());
        }
        return Heads.merge(s, out, o.count * o.valueSize);
    }

    /**
     * Which keys a padding mask leaves, broadcastable to {@code [B, N, S, T]}. The mask is {@code [B, T]} or
     * {@code [B, S, T]}; or the lengths of rows, {@code [B]} or first in {@code [3B + 2]}; or lengths and then starts,
     * {@code [2B]}.
     */
    private static String seen(RewriteContext s, int mask, String keys) {
        if (s.rank(mask) > 1) {
            String marked = s.cast(s.in(mask), DType.BOOL);
            return s.rank(mask) == 2 ? s.unsqueeze(marked, 1, 2) : s.unsqueeze(marked, 1);
        }
        String batch = s.unsqueeze(Ranges.extent(s, s.in(0), 0), 0);
        String numbers = s.cast(s.in(mask), DType.INT64);
        String zero = s.graph().ints(0);
        String column = Ranges.upTo(s, keys);
        String ends = s.reshape(s.add("Slice", numbers, zero, batch, zero), -1, 1, 1, 1);
        String seen = s.add("Less", column, ends);
        boolean starts = s.shape(mask, 0)[0] == 2 * s.shape(0, 0)[0] && s.shape(mask, 1)[0] == 2 * s.shape(0, 1)[0];
        if (!starts) {
            return seen;
        }
        String last = s.graph().ints(Integer.MAX_VALUE);
        String begins = s.reshape(s.add("Slice", numbers, batch, last, zero), -1, 1, 1, 1);
        return s.add("And", seen, s.add("GreaterOrEqual", column, begins));
    }
}
