// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.ir.DType;
import java.util.List;

/**
 * Decompositions of ONNX Runtime's attention with equal numbers of key and query heads, and its masks, for complete
 * rows without a past.
 */
final class MultiHeadDecompositions {
    private static final float MASKED_SCORE = -10000;

    private MultiHeadDecompositions() {}

    static void register(Decompositions.Table table) {
        table.contrib(MultiHeadDecompositions::multiHead, "MultiHeadAttention");
        table.contrib(MultiHeadDecompositions::merged, "Attention");
    }

    /**
     * Operands of one attention operator.
     *
     * @param count number of heads
     * @param size channels of a query or key head
     * @param valueSize channels of a value head
     */
    private record Operands(Heads query, Heads key, Heads value, long count, long size, long valueSize) {}

    /**
     * com.microsoft.MultiHeadAttention (query, key, value, bias, key padding mask, attention bias, past key, past
     * value). Query, key and value are {@code [B, S, N·d]}; or key and value have a head axis, {@code [B, N, T, d]};
     * or query holds all three, {@code [B, S, N, 3, d]}; or key holds keys and values, {@code [B, T, N, 2, d]}.
     */
    private static boolean multiHead(RewriteContext c) {
        boolean packed = c.rank(0) == 5;
        if (!packed && !c.has(1) || c.has(4) && c.rank(4) > 3) {
            return false;
        }
        Operands operands = packed ? packed(c) : separate(c);
        String out = attend(c, operands, 4);
        c.result(0, out);
        if (c.wants(1)) {
            c.result(1, operands.key.headFirst(c));
        }
        if (c.wants(2)) {
            c.result(2, operands.value.headFirst(c));
        }
        return true;
    }

    private static Operands packed(RewriteContext c) {
        long count = c.node().intAttribute("num_heads", 0);
        long size = c.extent(0, 4);
        List<String> parts = c.split(c.in(0), 3, 1, 1, 1);
        return biased(
                c,
                new Operands(
                        Heads.of(c, parts.get(0), count, size),
                        Heads.of(c, parts.get(1), count, size),
                        Heads.of(c, parts.get(2), count, size),
                        count,
                        size,
                        size));
    }

    private static Operands separate(RewriteContext c) {
        long count = c.node().intAttribute("num_heads", 0);
        long size = c.extent(0, 2) / count;
        Heads query = Heads.of(c, c.in(0), count, size);
        if (c.rank(1) == 5) {
            List<String> parts = c.split(c.in(1), 3, 1, 1);
            Heads key = Heads.of(c, parts.get(0), count, size);
            Heads value = Heads.of(c, parts.get(1), count, size);
            return biased(c, new Operands(query, key, value, count, size, size));
        }
        if (c.rank(1) == 4) {
            Heads key = new Heads(c.in(1), true);
            Heads value = new Heads(c.in(2), true);
            return biased(c, new Operands(query, key, value, count, size, c.extent(2, 3)));
        }
        long valueSize = c.extent(2, 2) / count;
        Heads key = Heads.of(c, c.in(1), count, size);
        Heads value = Heads.of(c, c.in(2), count, valueSize);
        return biased(c, new Operands(query, key, value, count, size, valueSize));
    }

    /** Adds the parts of the bias. Keys and values that already have a head axis get none. */
    private static Operands biased(RewriteContext c, Operands o) {
        if (!c.has(3)) {
            return o;
        }
        long width = o.count * o.size;
        List<String> parts = c.split(c.in(3), 0, width, width, o.count * o.valueSize);
        return new Operands(
                biased(c, o.query, parts.get(0), o.count, o.size),
                biased(c, o.key, parts.get(1), o.count, o.size),
                biased(c, o.value, parts.get(2), o.count, o.valueSize),
                o.count,
                o.size,
                o.valueSize);
    }

    private static Heads biased(RewriteContext c, Heads heads, String bias, long count, long size) {
        return heads.first() ? heads : heads.with(c.add("Add", heads.value(), c.reshape(bias, count, size)));
    }

    /**
     * com.microsoft.Attention (input, weights, bias, mask index, past, attention bias): a linear layer with one weight
     * {@code [D, q + k + v]}, then attention. Output 1 is keys and values, {@code [2, B, N, T, d]}.
     */
    private static boolean merged(RewriteContext c) {
        if (c.has(3) && c.rank(3) > 3 || c.node().intAttribute("do_rotary", 0) != 0) {
            return false;
        }
        long count = c.node().intAttribute("num_heads", 0);
        long width = c.extent(1, 1);
        List<Long> given = c.node().intsAttribute("qkv_hidden_sizes");
        long[] sizes = given == null || given.isEmpty()
                ? new long[] {width / 3, width / 3, width / 3}
                : given.stream().mapToLong(Long::longValue).toArray();
        String projected = c.plus(c.add("MatMul", c.in(0), c.in(1)), c.in(2));
        List<String> parts = c.split(projected, -1, sizes);
        long size = sizes[0] / count;
        long valueSize = sizes[2] / count;
        Operands operands = new Operands(
                Heads.of(c, parts.get(0), count, size),
                Heads.of(c, parts.get(1), count, size),
                Heads.of(c, parts.get(2), count, valueSize),
                count,
                size,
                valueSize);
        c.result(0, attend(c, operands, 3));
        if (c.wants(1)) {
            String key = c.unsqueeze(operands.key.headFirst(c), 0);
            c.result(1, c.concat(0, key, c.unsqueeze(operands.value.headFirst(c), 0)));
        }
        return true;
    }

    /**
     * Appends the attention with the operator's masks.
     *
     * @param mask position of the padding mask; that of the attention bias is 5
     */
    private static String attend(RewriteContext c, Operands o, int mask) {
        ScaledDotProduct attention =
                new ScaledDotProduct(c, o.count, o.count).scale(AttentionDecompositions.scale(c, o.size));
        String queries = Ranges.extent(c, c.in(0), 1);
        boolean separate = mask == 4 && c.has(1);
        String keys = separate ? Ranges.extent(c, c.in(1), c.rank(1) == 4 ? 2 : 1) : queries;
        if (c.has(mask)) {
            float masked = c.node().floatAttribute("mask_filter_value", MASKED_SCORE);
            attention.bias(c.shared(
                    "padding " + c.in(mask) + " " + masked + " " + keys,
                    () -> Ranges.additive(c, visible(c, mask, keys), masked)));
        }
        if (c.node().intAttribute("unidirectional", 0) != 0) {
            attention.bias(Ranges.causal(c, queries, keys, -1));
        }
        attention.bias(c.in(5));
        if (mask == 4 && c.wants(3)) {
            attention.keepSteps();
        }
        String out = attention.append(o.query.headFirst(c), o.key.transposed(c), o.value.headFirst(c));
        if (mask == 4) {
            c.result(3, attention.biased());
        }
        return Heads.merge(c, out, o.count * o.valueSize);
    }

    /**
     * The keys that a padding mask makes visible, broadcastable to {@code [B, N, S, T]}. The mask is {@code [B, T]} or
     * {@code [B, S, T]}; or the lengths of rows, {@code [B]} or the first of {@code [3B + 2]}; or lengths followed by
     * starts, {@code [2B]}.
     */
    private static String visible(RewriteContext c, int mask, String keys) {
        if (c.rank(mask) > 1) {
            String marked = c.cast(c.in(mask), DType.BOOL);
            return c.rank(mask) == 2 ? c.unsqueeze(marked, 1, 2) : c.unsqueeze(marked, 1);
        }
        String batch = c.unsqueeze(Ranges.extent(c, c.in(0), 0), 0);
        String numbers = c.cast(c.in(mask), DType.INT64);
        String zero = c.graph().ints(0);
        String column = Ranges.upTo(c, keys);
        String ends = c.reshape(c.add("Slice", numbers, zero, batch, zero), -1, 1, 1, 1);
        String visible = c.add("Less", column, ends);
        boolean starts = c.shape(mask, 0)[0] == 2 * c.shape(0, 0)[0] && c.shape(mask, 1)[0] == 2 * c.shape(0, 1)[0];
        if (!starts) {
            return visible;
        }
        String last = c.graph().ints(Integer.MAX_VALUE);
        String begins = c.reshape(c.add("Slice", numbers, batch, last, zero), -1, 1, 1, 1);
        return c.add("And", visible, c.add("GreaterOrEqual", column, begins));
    }
}
