// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.ir.DType;
import io.onnxprune.ir.Node;
import java.util.List;

/**
 * Fused attention with grouped key and value heads, for whole rows: what an operator is given as a past is taken to be
 * empty.
 */
final class AttentionDecompositions {
    private AttentionDecompositions() {}

    static void register(Decompositions.Table table) {
        table.contrib(AttentionDecompositions::groupQuery, "GroupQueryAttention");
        table.onnx(AttentionDecompositions::onnx, "Attention");
    }

    /** The factor of the scores: as given, or by default one over the root of the head size. */
    static double scale(RewriteContext s, long size) {
        float given = s.node().floatAttribute("scale", 0);
        return given == 0 ? 1 / Math.sqrt((double) size) : given;
    }

    /**
     * com.microsoft.GroupQueryAttention (query, key, value, past key, past value, seqlens_k, total length, cos, sin,
     * position ids, attention bias, head sink, k scale, v scale, q norm, k norm): causal attention with fewer key than
     * query heads, after an optional norm and rotary embedding of every head. Query holds keys and values too where these
     * are omitted. The lengths only tell padding at the end of rows apart, which no earlier token sees.
     */
    private static boolean groupQuery(RewriteContext s) {
        Node node = s.node();
        long count = node.intAttribute("num_heads", 0);
        long keyCount = node.intAttribute("kv_num_heads", 0);
        boolean packed = !s.has(1);
        long size = s.extent(0, 2) / (packed ? count + 2 * keyCount : count);
        List<String> parts = packed
                ? s.split(s.in(0), -1, count * size, keyCount * size, keyCount * size)
                : List.of(s.in(0), s.in(1), s.in(2));
        Heads q = Heads.of(s, parts.get(0), count, size);
        Heads k = Heads.of(s, parts.get(1), keyCount, size);
        String v = Heads.of(s, parts.get(2), keyCount, size).headFirst(s);
        if (s.has(14) && s.has(15)) {
            float epsilon = node.floatAttribute("qk_norm_epsilon", 1e-6f);
            q = q.with(NormDecompositions.rootMeanSquare(s, q.value(), s.in(14), epsilon));
            k = k.with(NormDecompositions.rootMeanSquare(s, k.value(), s.in(15), epsilon));
        }
        String length = Ranges.scalar(s, s.in(6));
        if (node.intAttribute("do_rotary", 0) != 0) {
            Rotary.Tables tables = groupQueryTables(s, length);
            q = q.with(Rotary.rotate(s, q.value(), size, tables));
            k = k.with(Rotary.rotate(s, k.value(), size, tables));
        }
        ScaledDotProduct attention = new ScaledDotProduct(s, count, keyCount)
                .scale(scale(s, size))
                .softcap(node.floatAttribute("softcap", 0));
        if (node.intAttribute("causal", 1) != 0) {
            attention.bias(Ranges.causal(s, length, length, node.intAttribute("local_window_size", -1)));
        }
        attention.bias(s.in(10));
        if (s.has(11)) {
            attention.sink(s.reshape(s.in(11), count, 1, 1));
        } else if (node.intAttribute("smooth_softmax", 0) > 0) {
            attention.sink(s.scalar(0));
        }
        s.result(0, Heads.merge(s, attention.append(q.headFirst(s), k.transposed(s), v), count * size));
        s.result(2, v);
        if (s.wants(1)) {
            s.result(1, k.headFirst(s));
        }
        s.result(3, node.intAttribute("qk_output", 0) == 2 ? attention.weights() : attention.biased());
        return true;
    }

    private static Rotary.Tables groupQueryTables(RewriteContext s, String length) {
        boolean interleaved = s.node().intAttribute("rotary_interleaved", 0) != 0;
        String positions = s.has(9) ? Rotary.from(s, s.in(9), length) : Ranges.upTo(s, length);
        List<String> sources = List.of(s.in(7), s.in(8), positions);
        return Rotary.tables(s, sources, Rotary.Layout.BSNH, 2 * s.extent(7, -1), interleaved);
    }

    /**
     * Attention of opsets 23 and 24 (Q, K, V, mask, past key, past value, lengths): operands are {@code [B, S, N·d]} with
     * heads counted by attributes, or {@code [B, N, S, d]}. A boolean mask is true where a key is seen; a float mask is
     * added to the scores after the bound. Result 3 are the scores after the step that {@code qk_matmul_output_mode}
     * names.
     */
    private static boolean onnx(RewriteContext s) {
        Node node = s.node();
        boolean flat = s.rank(0) == 3;
        long count = flat ? node.intAttribute("q_num_heads", 0) : s.extent(0, 1);
        long keyCount = flat ? node.intAttribute("kv_num_heads", 0) : s.extent(1, 1);
        long size = flat ? s.extent(0, 2) / count : s.extent(0, 3);
        long valueSize = flat ? s.extent(2, 2) / keyCount : s.extent(2, 3);
        Heads q = flat ? Heads.of(s, s.in(0), count, size) : new Heads(s.in(0), true);
        Heads k = flat ? Heads.of(s, s.in(1), keyCount, size) : new Heads(s.in(1), true);
        Heads v = flat ? Heads.of(s, s.in(2), keyCount, valueSize) : new Heads(s.in(2), true);
        ScaledDotProduct attention = new ScaledDotProduct(s, count, keyCount)
                .scale(scale(s, size))
                .softcap(node.floatAttribute("softcap", 0));
        int sequence = flat ? 1 : 2;
        String keys = Ranges.extent(s, s.in(1), sequence);
        if (node.intAttribute("is_causal", 0) != 0) {
            attention.bias(Ranges.causal(s, Ranges.extent(s, s.in(0), sequence), keys, -1));
        }
        if (s.has(3)) {
            attention.bias(
                    s.dtype(3) == DType.BOOL
                            ? s.shared("mask " + s.in(3), () -> Ranges.additive(s, s.in(3), Ranges.LOWEST))
                            : s.in(3));
        }
        if (s.has(6)) {
            String seen = s.add("Less", Ranges.upTo(s, keys), s.reshape(s.cast(s.in(6), DType.INT64), -1, 1, 1, 1));
            attention.bias(Ranges.additive(s, seen, Ranges.LOWEST));
        }
        if (s.wants(3)) {
            attention.keepSteps();
        }
        String values = v.headFirst(s);
        String out = attention.append(q.headFirst(s), k.transposed(s), values);
        s.result(0, flat ? Heads.merge(s, out, count * valueSize) : out);
        s.result(2, values);
        if (s.wants(1)) {
            s.result(1, k.headFirst(s));
        }
        s.result(3, step(attention, node.intAttribute("qk_matmul_output_mode", 0)));
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
