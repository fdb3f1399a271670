// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import java.util.Locale;

/** The role of a dimension in a transformer, derived from where it occurs. */
public enum Role {
    /** Attention heads that each have their own keys and values, or that all share one set. */
    HEADS("attention heads"),
    /** KV groups: key and value heads of grouped-query attention, each with its group of query heads. */
    KV_HEADS("KV groups"),
    /** Query heads within every KV group. Pruning one removes the query head of that index from each group. */
    QUERY_HEADS("query heads of every KV group"),
    /** FFN channels: the inner width of a feed-forward block or of one expert. */
    FFN("FFN channels"),
    /** The width of the residual stream. */
    HIDDEN("hidden channels"),
    /** Components of a query and key head, or pairs of components that a rotary embedding rotates. */
    QK_HEAD_DIM("query and key head size"),
    /** Components of a value head. */
    V_HEAD_DIM("value head size"),
    /** Inner width of a low-rank projection in attention: of queries, keys, values or the result. */
    LATENT("latent width of attention"),
    /** Channels of a block that combines positions without attention, such as a convolution or a recurrence. */
    MIXER("mixer channels"),
    /** Width of values beside the residual stream: of an encoder, or of per-layer embeddings. */
    SIDE("side channels"),
    /** Experts of a mixture. */
    EXPERTS("experts"),
    /** Rows of the embedding and columns of the output head. */
    VOCABULARY("vocabulary"),
    /** Any other dimension of weights. */
    OTHER("other");

    private final String title;

    Role(String title) {
        this.title = title;
    }

    /** The name for text output. */
    public String title() {
        return title;
    }

    /** The name for files and options, such as {@code kv_heads}. */
    public String key() {
        return name().toLowerCase(Locale.ROOT);
    }
}
