// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import java.util.Locale;

/** What a dimension is in a transformer, derived from where it occurs. */
public enum Role {
    /** Attention heads that each have their own keys and values (or all share one set). */
    HEADS("attention heads"),
    /** Key and value heads of grouped-query attention, each with its group of query heads. */
    KV_HEADS("KV groups"),
    /** Query heads inside every KV group, the same ones in each. */
    QUERY_HEADS("query heads of every KV group"),
    /** Channels between the two projections of a feed-forward block (or of one expert). */
    FFN("FFN channels"),
    /** The width of the residual stream. */
    HIDDEN("hidden channels"),
    /** Components of a query and key head (pairs of them where rotary embedding turns them). */
    QK_HEAD_DIM("query and key head size"),
    /** Components of a value head. */
    V_HEAD_DIM("value head size"),
    /** Width between the two factors of a low-rank projection of queries, keys or values. */
    LATENT("latent width of attention"),
    /** Experts of a mixture. */
    EXPERTS("experts"),
    /** Rows of the embedding and columns of the head. */
    VOCABULARY("vocabulary"),
    /** Anything else that carries weights. */
    OTHER("other");

    private final String title;

    Role(String title) {
        this.title = title;
    }

    /** For people. */
    public String title() {
        return title;
    }

    /** For files and options: {@code kv_heads}. */
    public String key() {
        return name().toLowerCase(Locale.ROOT);
    }
}
