// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.ir.DType;
import io.onnxprune.ir.Node;
import java.util.List;

/**
 * Decompositions of fused attention with grouped key and value heads, for complete rows: the past is taken to be empty.
 */
final class AttentionDecompositions {
    private AttentionDecompositions() {}

    static void register(Decompositions.Table table) {
        table.contrib(AttentionDecompositions::groupQuery, "GroupQueryAttention");
        table.onnx(AttentionDecompositions::onnx, "Attention");
    }

    /** The factor of the scores: the attribute, or by default one over the square root of the head size. */
    static double scale(RewriteContext c, long size) {
        float given = c.node().floatAttribute("scale", 0);
        return given == 0 ? 1 / Math.sqrt((double) size) : given;
    }

    /**
     * com.microsoft.GroupQueryAttention (query, key, value, past key, past value, seqlens_k, total length, cos, sin,
     * position ids, attention bias, head sink, k scale, v scale, q norm, k norm): causal attention with fewer key than
     * query heads, after an optional norm and rotary embedding of every head. If key and value are omitted, query
     * holds all three. The lengths only mark padding at the end of rows, which no earlier token attends to.
     */
    private static boolean groupQuery(RewriteContext c) {
        Node node = c.node();
        long count = node.intAttribute("num_heads", 0);
        long keyCount = node.intAttribute("kv_num_heads", 0);
        boolean packed = !c.has(1);
        long size = c.extent(0, 2) / (packed ? count + 2 * keyCount : count);
        List<String> parts = packed
                ? c.split(c.in(0), -1, count * size, keyCount * size, keyCount * size)
                : List.of(c.in(0), c.in(1), c.in(2));
        Heads q = Heads.of(c, parts.get(0), count, size);
        Heads k = Heads.of(c, parts.get(1), keyCount, size);
        String v = Heads.of(c, parts.get(2), keyCount, size).headFirst(c);
        if (c.has(14) && c.has(15)) {
            float epsilon = node.floatAttribute("qk_norm_epsilon", 1e-6f);
            q = q.with(NormDecompositions.rootMeanSquare(c, q.value(), c.in(14), epsilon));
            k = k.with(NormDecompositions.rootMeanSquare(c, k.value(), c.in(15), epsilon));
        }
        String length = Ranges.scalar(c, c.in(6));
        if (node.intAttribute("do_rotary", 0) != 0) {
            Rotary.Tables tables = groupQueryTables(c, length);
            q = q.with(Rotary.rotate(c, q.value(), size, tables));
            k = k.with(Rotary.rotate(c, k.value(), size, tables));
        }
        ScaledDotProduct attention = new ScaledDotProduct(c, count, keyCount)
                .scale(scale(c, size))
                .softcap(node.floatAttribute("softcap", 0));
        if (node.intAttribute("causal", 1) != 0) {
            attention.bias(Ranges.causal(c, length, length, node.intAttribute("local_window_size", -1)));
        }
        attention.bias(c.in(10));
        if (c.has(11)) {
            attention.sink(c.reshape(c.in(11), count, 1, 1));
        } else if (node.intAttribute("smooth_softmax", 0) > 0) {
            attention.sink(c.scalar(0));
        }
        c.result(0, Heads.merge(c, attention.append(q.headFirst(c), k.transposed(c), v), count * size));
        c.result(2, v);
        if (c.wants(1)) {
            c.result(1, k.headFirst(c));
        }
        c.result(3, node.intAttribute("qk_output", 0) == 2 ? attention.weights() : attention.biased());
        return true;
    }

    private static Rotary.Tables groupQueryTables(RewriteContext c, String length) {
        boolean interleaved = c.node().intAttribute("rotary_interleaved", 0) != 0;
        String positions = c.has(9) ? Rotary.from(c, c.in(9), length) : Ranges.upTo(c, length);
        List<String> sources = List.of(c.in(7), c.in(8), positions);
        return Rotary.tables(c, sources, Rotary.Layout.BSNH, 2 * c.extent(7, -1), interleaved);
    }

    /**
     * Attention of opsets 23 and 24 (Q, K, V, mask, past key, past value, lengths). Operands are {@code [B, S, N·d]}
     * with head counts as attributes, or {@code [B, N, S, d]}. A boolean mask is true where a key is visible; a float
     * mask is added to the scores after the softcap. Output 3 is the scores after the step that
     * {@code qk_matmul_output_mode} selects.
     */
    private static boolean onnx(RewriteContext c) {
        Node node = c.node();
        boolean flat = c.rank(0) == 3;
        long count = flat ? node.intAttribute("q_num_heads", 0) : c.extent(0, 1);
        long keyCount = flat ? node.intAttribute("kv_num_heads", 0) : c.extent(1, 1);
        long size = flat ? c.extent(0, 2) / count : c.extent(0, 3);
        long valueSize = flat ? c.extent(2, 2) / keyCount : c.extent(2, 3);
        Heads q = flat ? Heads.of(c, c.in(0), count, size) : new Heads(c.in(0), true);
        Heads k = flat ? Heads.of(c, c.in(1), keyCount, size) : new Heads(c.in(1), true);
        Heads v = flat ? Heads.of(c, c.in(2), keyCount, valueSize) : new Heads(c.in(2), true);
        ScaledDotProduct attention = new ScaledDotProduct(c, count, keyCount)
                .scale(scale(c, size))
                .softcap(node.floatAttribute("softcap", 0));
        int sequence = flat ? 1 : 2;
        String keys = Ranges.extent(c, c.in(1), sequence);
        if (node.intAttribute("is_causal", 0) != 0) {
            attention.bias(Ranges.causal(c, Ranges.extent(c, c.in(0), sequence), keys, -1));
        }
        if (c.has(3)) {
            attention.bias(
                    c.dtype(3) == DType.BOOL
                            ? c.shared("mask " + c.in(3), () -> Ranges.additive(c, c.in(3), Ranges.LOWEST))
                            : c.in(3));
        }
        if (c.has(6)) {
            String visible = c.add("Less", Ranges.upTo(c, keys), c.reshape(c.cast(c.in(6), DType.INT64), -1, 1, 1, 1));
            attention.bias(Ranges.additive(c, visible, Ranges.LOWEST));
        }
        if (c.wants(3)) {
            attention.keepSteps();
        }
        String values = v.headFirst(c);
        String out = attention.append(q.headFirst(c), k.transposed(c), values);
        c.result(0, flat ? Heads.merge(c, out, count * valueSize) : out);
        c.result(2, values);
        if (c.wants(1)) {
            c.result(1, k.headFirst(c));
        }
        c.result(3, step(attention, node.intAttribute("qk_matmul_output_mode", 0)));
        return true;
    }

    private static String step(ScaledDotProduct attention, long mode) {
        return switch ((int) mode) {
            case 0 -> attention.scores();
            case 1 -> attention.capped();
            case 2 -> attention.biased();
            default -> attention.weights();
        };
    }
}
