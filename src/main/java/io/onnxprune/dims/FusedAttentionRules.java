// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import java.util.ArrayList;
import java.util.List;

/**
 * Rules of fused attention and rotary embedding, for ONNX Runtime's contrib operators and opset 23. Head counts can
 * change. The head size is fixed by the kernels and the default scale, so it is pinned unless the operator allows
 * another one.
 */
final class FusedAttentionRules {
    private static final String HEAD_SIZE = "the head size of a fused attention is fixed";

    private FusedAttentionRules() {}

    static void register(OperatorRules.Table table) {
        table.contrib(FusedAttentionRules::groupQuery, "GroupQueryAttention");
        table.contrib(FusedAttentionRules::multiHead, "MultiHeadAttention");
        table.contrib(FusedAttentionRules::mergedAttention, "Attention");
        table.onnx(FusedAttentionRules::attention, "Attention");
        table.contrib(FusedAttentionRules::rotaryContrib, "RotaryEmbedding");
        table.onnx(FusedAttentionRules::rotary, "RotaryEmbedding");
    }

    /**
     * The head size of a fused attention node, computed from the declared width of its query; 0 when it is not such a
     * node or the width is unknown. Exporters leave that axis of the cache symbolic.
     */
    static long headSize(Op op) {
        Node node = op.node();
        boolean grouped = node.is("GroupQueryAttention");
        if (!node.domain().equals("com.microsoft") || !grouped && !node.is("MultiHeadAttention")) {
            return 0;
        }
        long heads = node.intAttribute("num_heads", 0);
        long keyHeads = grouped ? node.intAttribute("kv_num_heads", heads) : heads;
        boolean packed = op.input(1) == null;
        long width = width(op.input(0));
        return heads == 0 ? 0 : width / (packed ? heads + 2 * keyHeads : heads);
    }

    /** The last extent of a value, from its declaration or from the weight that produces it; 0 when unknown. */
    private static long width(Value value) {
        ValueInfo info = value.info();
        if (info != null && info.shape() != null && !info.shape().isEmpty()) {
            ValueInfo.Extent last = info.shape().get(info.shape().size() - 1);
            if (last.isKnown()) {
                return last.size();
            }
        }
        Op producer = value.producer();
        if (producer == null) {
            return 0;
        }
        if (producer.node().is("MatMulNBits")) {
            return producer.node().intAttribute("N", 0);
        }
        if (producer.node().is("RotaryEmbedding")) {
            return width(producer.input(0)); // Its constants are tables of another width.
        }
        for (Value input : producer.inputs()) {
            Tensor weight = input == null ? null : input.origin().constant();
            if (weight != null && weight.rank() > 0 && weight.dtype().isFloat()) {
                return weight.dim(weight.rank() - 1);
            }
        }
        return producer.input(0) == null ? 0 : width(producer.input(0));
    }

    /** Query heads, key and value heads, and head size of one attention operator. */
    private record Heads(Dim query, Dim keyValue, Dim size) {}

    private static Heads heads(RuleContext c, long query, long keyValue, long size) {
        Dim kv = keyValue == 1 ? Dim.ONE : c.fresh(keyValue);
        Dim repeat = query == keyValue ? Dim.ONE : c.fresh(query / keyValue);
        return new Heads(Dim.product(List.of(kv, repeat)), kv, c.pinned(size, HEAD_SIZE));
    }

    private static Dim by(Dim heads, Dim size) {
        return Dim.product(List.of(heads, size));
    }

    private static void cache(RuleContext c, Dim[] cache, Dim heads, Dim size) {
        if (cache != null && cache.length == 4) {
            c.unifyBroadcast(cache[1], heads);
            c.unifyBroadcast(cache[3], size);
        }
    }

    private static void groupQuery(RuleContext c) {
        long query = c.node().intAttribute("num_heads", 0);
        long keyValue = c.node().intAttribute("kv_num_heads", 0);
        Dim[] q = c.in(0);
        Dim[] out = c.out(0);
        boolean packed = c.in(1) == null;
        Dim width = q[q.length - 1];
        Heads heads = heads(c, query, keyValue, width.size(0) / (packed ? query + 2 * keyValue : query));
        Dim queries = by(heads.query, heads.size);
        Dim keys = by(heads.keyValue, heads.size);
        if (packed) {
            c.unify(width, Dim.sum(List.of(queries, keys, keys)));
        } else {
            c.unify(width, queries);
            c.unify(c.in(1)[2], keys);
            c.unify(c.in(2)[2], keys);
        }
        for (int i = 0; i < 2; i++) {
            c.unifyBroadcast(q[i], out[i]);
            cache(c, c.in(3 + i), heads.keyValue, heads.size);
            cache(c, c.out(1 + i), heads.keyValue, heads.size);
        }
        c.unify(out[2], queries);
        for (int i = 5; i < c.op().inputs().size(); i++) {
            sideOperand(c, i, heads);
        }
        c.requireAttribute("num_heads", -1, heads.query);
        c.requireAttribute("kv_num_heads", -1, heads.keyValue);
        c.distribution(List.of(heads.query), Dim.ONE);
    }

    /**
     * Inputs 5 and later of GroupQueryAttention: rotary tables, masks, attention sinks, cache scales and head norms.
     */
    private static void sideOperand(RuleContext c, int input, Heads heads) {
        Dim[] dims = c.in(input);
        if (dims == null) {
            return;
        }
        if (input == 10 && dims.length == 4) {
            c.unifyBroadcast(dims[1], heads.query);
        } else if (input == 11 && dims.length == 1) {
            c.unifyBroadcast(dims[0], heads.query);
        } else if ((input == 12 || input == 13) && dims.length > 0 && !dims[dims.length - 1].isOne()) {
            c.unify(dims[dims.length - 1], by(heads.keyValue, heads.size));
        } else if (input == 14 || input == 15) {
            c.unifyAll(dims, new Dim[] {heads.size});
        } else {
            c.pin(dims, "used by a fused attention operator");
        }
    }

    private static void multiHead(RuleContext c) {
        long count = c.node().intAttribute("num_heads", 0);
        Dim[] q = c.in(0);
        if (q.length != 3 || c.in(1) == null || c.in(2) == null) {
            OperatorRules.pinEverything(c, "packed multi-head attention is not analysed");
            return;
        }
        Heads heads = heads(c, count, count, q[2].size(0) / count);
        Dim width = by(heads.query, heads.size);
        c.unify(q[2], width);
        Dim valueSize = heads.size;
        for (int i = 1; i <= 2; i++) {
            Dim[] dims = c.in(i);
            if (dims.length == 4) {
                cacheLike(c, dims, heads);
            } else {
                if (i == 2 && !dims[2].sameSize(width)) {
                    valueSize = c.pinned(dims[2].size(0) / count, HEAD_SIZE);
                }
                c.unify(dims[2], by(heads.query, i == 1 ? heads.size : valueSize));
            }
        }
        if (c.in(3) != null) {
            c.unify(c.in(3)[0], Dim.sum(List.of(width, width, by(heads.query, valueSize))));
        }
        if (c.in(5) != null && c.in(5).length == 4) {
            c.unifyBroadcast(c.in(5)[1], heads.query);
        }
        cache(c, c.in(6), heads.query, heads.size);
        cache(c, c.in(7), heads.query, valueSize);
        cache(c, c.out(1), heads.query, heads.size);
        cache(c, c.out(2), heads.query, valueSize);
        c.unifyBroadcast(q[0], c.out(0)[0]);
        c.unifyBroadcast(q[1], c.out(0)[1]);
        c.unify(c.out(0)[2], by(heads.query, valueSize));
        c.requireAttribute("num_heads", -1, heads.query);
        c.distribution(List.of(heads.query), Dim.ONE);
    }

    private static void cacheLike(RuleContext c, Dim[] dims, Heads heads) {
        c.unifyBroadcast(dims[1], heads.query);
        c.unifyBroadcast(dims[3], heads.size);
    }

    /** com.microsoft.Attention: one weight [D, q ⊕ k ⊕ v] as an input of the node. */
    private static void mergedAttention(RuleContext c) {
        long count = c.node().intAttribute("num_heads", 0);
        Dim[] x = c.in(0);
        Dim[] weight = c.in(1);
        List<Long> sizes = c.node().intsAttribute("qkv_hidden_sizes");
        long width = weight[1].size(0);
        List<Dim> parts = new ArrayList<>();
        Heads heads = heads(c, count, count, (sizes == null ? width / 3 : sizes.get(0)) / count);
        Dim valueSize = sizes == null || sizes.get(2).equals(sizes.get(0))
                ? heads.size
                : c.pinned(sizes.get(2) / count, HEAD_SIZE);
        for (int i = 0; i < 3; i++) {
            parts.add(by(heads.query, i < 2 ? heads.size : valueSize));
            if (sizes != null) {
                c.requireAttribute("qkv_hidden_sizes", i, parts.get(i));
            }
        }
        c.unify(x[2], weight[0]);
        c.contraction(x[2], true);
        c.unify(weight[1], Dim.sum(parts));
        if (c.in(2) != null) {
            c.unify(c.in(2)[0], Dim.sum(parts));
        }
        if (c.in(4) != null) {
            c.unifyBroadcast(c.in(4)[2], heads.query);
            c.pin(c.in(4)[4], HEAD_SIZE);
        }
        if (c.out(1) != null) {
            c.unifyBroadcast(c.out(1)[2], heads.query);
            c.pin(c.out(1)[4], HEAD_SIZE);
        }
        if (c.in(5) != null && c.in(5).length == 4) {
            c.unifyBroadcast(c.in(5)[1], heads.query);
        }
        c.unifyBroadcast(x[0], c.out(0)[0]);
        c.unifyBroadcast(x[1], c.out(0)[1]);
        c.unify(c.out(0)[2], parts.get(2));
        c.requireAttribute("num_heads", -1, heads.query);
        c.distribution(List.of(heads.query), Dim.ONE);
    }

    /** Attention of opsets 23 and 24. Operands of rank 4 have a head axis; for rank 3 attributes give the head counts. */
    private static void attention(RuleContext c) {
        Dim[] q = c.in(0);
        Dim[] k = c.in(1);
        Dim[] v = c.in(2);
        Dim[] out = c.out(0);
        boolean flat = q.length == 3;
        long query = flat ? c.node().intAttribute("q_num_heads", 1) : q[1].size(0);
        long keyValue = flat ? c.node().intAttribute("kv_num_heads", 1) : k[1].size(0);
        long size = flat ? q[2].size(0) / query : q[3].size(0);
        Dim kv = keyValue == 1 ? Dim.ONE : c.fresh(keyValue);
        Dim heads = Dim.product(List.of(kv, query == keyValue ? Dim.ONE : c.fresh(query / keyValue)));
        Dim keySize = c.fresh(size);
        Dim valueSize = c.fresh(flat ? v[2].size(0) / keyValue : v[3].size(0));
        if (!c.node().attributes().containsKey("scale")) {
            c.pin(keySize, "the attention scale follows from the head size");
        }
        if (flat) {
            c.unify(q[2], by(heads, keySize));
            c.unify(k[2], by(kv, keySize));
            c.unify(v[2], by(kv, valueSize));
            c.unify(out[2], by(heads, valueSize));
            c.requireAttribute("q_num_heads", -1, heads);
            c.requireAttribute("kv_num_heads", -1, kv);
        } else {
            attentionAxes(c, q, heads, keySize);
            attentionAxes(c, k, kv, keySize);
            attentionAxes(c, v, kv, valueSize);
            attentionAxes(c, out, heads, valueSize);
        }
        c.unifyBroadcast(q[0], out[0]);
        Dim[] mask = c.in(3);
        if (mask != null && mask.length >= 3) {
            c.unifyBroadcast(mask[mask.length - 3], heads);
        }
        cache(c, c.in(4), kv, keySize);
        cache(c, c.in(5), kv, valueSize);
        cache(c, c.out(1), kv, keySize);
        cache(c, c.out(2), kv, valueSize);
        if (c.out(3) != null) {
            c.unifyBroadcast(c.out(3)[1], heads);
        }
        c.distribution(List.of(heads), Dim.ONE);
        c.contraction(keySize, false);
    }

    private static void attentionAxes(RuleContext c, Dim[] dims, Dim heads, Dim size) {
        c.unifyBroadcast(dims[1], heads);
        c.unifyBroadcast(dims[3], size);
    }

    private static void rotaryContrib(RuleContext c) {
        Dim[] x = c.in(0);
        c.unifyAll(x, c.out(0));
        c.pin(c.in(2), "table of a fused rotary embedding");
        c.pin(c.in(3), "table of a fused rotary embedding");
        if (x.length == 4) {
            c.pin(x[3], HEAD_SIZE);
            if (c.node().intAttribute("num_heads", 0) != 0) {
                c.requireAttribute("num_heads", -1, x[1]);
            }
            return;
        }
        long count = c.node().intAttribute("num_heads", 0);
        long size = count != 0 ? x[2].size(0) / count : 2 * c.in(2)[1].size(0);
        long heads = x[2].size(0) / size;
        Dim found = heads == 1 ? Dim.ONE : c.fresh(heads);
        c.unify(x[2], by(found, c.pinned(size, HEAD_SIZE)));
        if (count != 0) {
            c.requireAttribute("num_heads", -1, found);
        }
    }

    /** RotaryEmbedding of opset 23. Rotated pairs are the two halves of a head, or neighbours when interleaved. */
    private static void rotary(RuleContext c) {
        Dim[] x = c.in(0);
        c.unifyAll(x, c.out(0));
        long count = c.node().intAttribute("num_heads", 0);
        Dim size;
        if (x.length == 4) {
            size = x[3];
            if (count != 0) {
                c.requireAttribute("num_heads", -1, x[1]);
            }
        } else {
            size = c.fresh(x[2].size(0) / count);
            Dim heads = count == 1 ? Dim.ONE : c.fresh(count);
            c.unify(x[2], by(heads, size));
            c.requireAttribute("num_heads", -1, heads);
        }
        Dim[] cos = c.in(1);
        Dim[] sin = c.in(2);
        Dim pairs = cos[cos.length - 1];
        c.unifyAll(cos, sin);
        boolean complete = c.node().intAttribute("rotary_embedding_dim", 0) == 0 && pairs.size(0) * 2 == size.size(0);
        if (!complete) {
            c.pin(size, "partly rotated");
            c.pin(pairs, "partly rotated");
        } else if (c.node().intAttribute("interleaved", 0) != 0) {
            c.unify(size, by(pairs, c.pinned(2, "rotated pair")));
        } else {
            c.unify(size, Dim.sum(List.of(pairs, pairs)));
        }
    }
}
