// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.ir.Attribute;
import java.util.List;
import java.util.Map;

/**
 * Scaled dot-product attention over a head axis: softmax(cap(scale · Q Kᵀ) + bias) V. Query heads that share a key
 * head are concatenated as more queries of that head, so that keys and values are neither repeated nor broadcast:
 *
 * <pre>
 *     Q [B, N, S, d] ─ Reshape [B, G, N/G·S, d] ─ MatMul Kᵀ [B, G, d, T] ─ Reshape [B, N, S, T] ─ Softmax ..
 * </pre>
 */
final class ScaledDotProduct {
    private final RewriteContext c;
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

    /**
     * Creates attention with {@code heads} query heads, of which {@code heads / keyHeads} neighbours share a key and
     * value head.
     */
    ScaledDotProduct(RewriteContext c, long heads, long keyHeads) {
        this.c = c;
        this.heads = heads;
        this.keyHeads = keyHeads;
    }

    /** Sets the factor of the scores. */
    ScaledDotProduct scale(double factor) {
        this.scale = factor;
        return this;
    }

    /** Sets the softcap: scores become cap · tanh(score / cap); 0 for none. */
    ScaledDotProduct softcap(double cap) {
        this.softcap = cap;
        return this;
    }

    /** Adds a value that broadcasts to {@code [B, N, S, T]} to the scores; an empty name adds nothing. */
    ScaledDotProduct bias(String added) {
        if (!added.isEmpty()) {
            bias = bias.isEmpty() ? added : c.add("Add", bias, added);
        }
        return this;
    }

    /**
     * Adds an attention sink: a key without a value, with this score for every query, {@code [N, 1, 1]} or a scalar.
     */
    ScaledDotProduct sink(String score) {
        this.sink = score;
        return this;
    }

    /** Makes {@link #scores} available; otherwise the scale may be folded into the softcap. */
    ScaledDotProduct keepSteps() {
        this.keepsSteps = true;
        return this;
    }

    /** The scaled scores {@code [B, N, S, T]}; only valid after {@link #keepSteps}. */
    String scores() {
        return scores;
    }

    /** The scores after the softcap. */
    String capped() {
        return capped;
    }

    /** The scores after softcap and bias. */
    String biased() {
        return biased;
    }

    /** The attention weights, the softmax of the scores. */
    String weights() {
        return weights;
    }

    /**
     * Appends the nodes of the attention.
     *
     * @param query {@code [B, N, S, d]}
     * @param key transposed, {@code [B, G, d, T]}
     * @param value {@code [B, G, T, dv]}
     * @return the output {@code [B, N, S, dv]}
     */
    String append(String query, String key, String value) {
        boolean folded = softcap != 0 && !keepsSteps;
        String scaled = c.scaled(query, folded ? scale / softcap : scale);
        scores = ungrouped(c.add("MatMul", grouped(scaled), key));
        capped = scores;
        if (softcap != 0) {
            capped = c.scaled(c.add("Tanh", folded ? scores : c.scaled(scores, 1 / softcap)), softcap);
        }
        biased = c.plus(capped, bias);
        weights = softmax(biased);
        return ungrouped(c.add("MatMul", grouped(weights), value));
    }

    private String grouped(String x) {
        return heads == keyHeads ? x : c.reshape(x, 0, keyHeads, -1, 0);
    }

    private String ungrouped(String x) {
        return heads == keyHeads ? x : c.reshape(x, 0, heads, -1, 0);
    }

    private String softmax(String x) {
        Map<String, Attribute> last = Map.of("axis", new Attribute.Int(-1));
        if (sink.isEmpty()) {
            return c.add("Softmax", List.of(x), last);
        }
        String leading = c.add("Shape", List.of(x), Map.of("start", new Attribute.Int(0), "end", new Attribute.Int(3)));
        String column = c.add("Expand", sink, c.concat(0, leading, c.graph().ints(1)));
        return c.slice(c.add("Softmax", List.of(c.concat(-1, x, column)), last), -1, 0, -1);
    }
}
