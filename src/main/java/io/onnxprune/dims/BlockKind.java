// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import java.util.Locale;

/** What a residual block computes, derived from its operators. */
public enum BlockKind {
    /** Attention over the positions of the residual stream. */
    ATTENTION("attention block", true, Slot.MIXER),
    /** Attention over other values, such as the states of an encoder. */
    CROSS_ATTENTION("cross-attention block", true, Slot.CROSS),
    /** Another operation along the positions, such as a convolution or a recurrence. */
    MIXER("mixer block", false, Slot.MIXER),
    /** Attention or another mixer with a feed-forward part beside it. */
    PARALLEL("attention and feed-forward block", true, Slot.PARALLEL),
    /** Each position by itself. */
    FEED_FORWARD("feed-forward block", false, Slot.FORWARD),
    /** Each position by itself, with values that are computed beside the stream, such as per-layer embeddings. */
    SIDE_INPUT("side-input block", false, Slot.SIDE),
    /** Has an operator without a rule, so that nothing is known. */
    UNKNOWN("block of unknown kind", false, Slot.ANY);

    /** The place of a block in its layer. Blocks that take turns in one place are of one slot. */
    enum Slot {
        MIXER,
        CROSS,
        PARALLEL,
        FORWARD,
        SIDE,
        ANY
    }

    private final String title;
    private final boolean attention;
    private final Slot slot;

    BlockKind(String title, boolean attention, Slot slot) {
        this.title = title;
        this.attention = attention;
        this.slot = slot;
    }

    /** The name for text output. */
    public String title() {
        return title;
    }

    /** The name for files, such as {@code feed_forward}. */
    public String key() {
        return name().toLowerCase(Locale.ROOT);
    }

    /** Whether the block has attention. */
    public boolean attends() {
        return attention;
    }

    /** Whether the block computes something for each position by itself. */
    public boolean feedsForward() {
        return this == FEED_FORWARD || this == PARALLEL || this == UNKNOWN;
    }

    Slot slot() {
        return slot;
    }
}
