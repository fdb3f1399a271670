// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.ir.Attribute;
import java.util.List;
import java.util.Map;

/**
 * Attention over heads that are an axis already: softmax(cap(scale · Q Kᵀ) + bias) V. Query heads that share a key head are
 * put side by side as more queries of that head, so that keys and values are neither repeated nor broadcast:
 *
 * <pre>
 *     Q [B, N, S, d] ─ Reshape [B, G, N/G·S, d] ─ MatMul Kᵀ [B, G, d, T] ─ Reshape [B, N, S, T] ─ Softmax ..
 * </pre>
 */
final class ScaledDotProduct {
    private final RewriteContext s;
    private final long heads;
    private final long keyHeads;
    private double scale = 1;
    private double softcap;
    private String bias = "";
    private String sink = "";
    private boolean keepsSteps;

    private String scores;
    private String capped;
    private String biased;
    private String weights;

    /** Attention of {@code heads} query heads, where {@code heads / keyHeads} neighbours share a key and value head. */
    ScaledDotProduct(RewriteContext s, long heads, long keyHeads) {
        this.s = s;
        this.heads = heads;
        this.keyHeads = keyHeads;
    }

    /** The factor of the scores. */
    ScaledDotProduct scale(double factor) {
        this.scale = factor;
        return this;
    }

    /** Bounds scores by cap · tanh(score / cap); 0 for no bound. */
    ScaledDotProduct softcap(double cap) {
        this.softcap = cap;
        return this;
    }

    /** Adds a value that broadcasts to {@code [B, N, S, T]} to the scores, unless its name is empty. */
    ScaledDotProduct bias(String added) {
        if (!added.isEmpty()) {
            bias = bias.isEmpty() ? added : s.add("Add", bias, added);
        }
        return this;
    }

    /** Lets every query also see a key without a value, of this score: {@code [N, 1, 1]} or a scalar. */
    ScaledDotProduct sink(String score) {
        this.sink = score;
        return this;
    }

    /** Has {@link #scores} computed as such. */
    ScaledDotProduct keepSteps() {
        this.keepsSteps = true;
        return this;
    }

    /** The scaled scores, {@code [B, N, S, T]}; only after {@link #keepSteps}. */
    String scores() {
        return scores;
    }

    /** The scores after the bound. */
    String capped() {
        return capped;
    }

    /** The scores after bound and bias. */
    String biased() {
        return biased;
    }

    /** The weights of the values. */
    String weights() {
        return weights;
    }

    /**
     * Appends it.
     *
     * @param query {@code [B, N, S, d]}
     * @param key transposed, {@code [B, G, d, T]}
     * @param value {@code [B, G, T, dv]}
     * @return {@code [B, N, S, dv]}
     */
    String append(String query, String key, String value) {
        boolean folded = softcap != 0 && !keepsSteps;
        String scaled = s.scaled(query, folded ? scale / softcap : scale);
        scores = ungrouped(s.add("MatMul", grouped(scaled), key));
        capped = scores;
        if (softcap != 0) {
            capped = s.scaled(s.add("Tanh", folded ? scores : s.scaled(scores, 1 / softcap)), softcap);
        }
        biased = s.plus(capped, bias);
        weights = softmax(biased);
        return ungrouped(s.add("MatMul", grouped(weights), value));
    }

    private String grouped(String x) {
        return heads == keyHeads ? x : s.reshape(x, 0, keyHeads, -1, 0);
    }

    private String ungrouped(String x) {
        return heads == keyHeads ? x : s.reshape(x, 0, heads, -1, 0);
    }

    private String softmax(String x) {
        Map<String, Attribute> last = Map.of("axis", new Attribute.Int(-1));
        if (sink.isEmpty()) {
            return s.add("Softmax", List.of(x), last);
        }
        String leading = s.add("Shape", List.of(x), Map.of("start", new Attribute.Int(0), "end", new Attribute.Int(3)));
        String column = s.add("Expand", sink, s.concat(0, leading, s.graph().ints(1)));
        return s.slice(s.add("Softmax", List.of(s.concat(-1, x, column)), last), -1, 0, -1);
    }
}
