// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

/**
 * Queries, keys or values with a head axis.
 *
 * @param value {@code [batch, heads, sequence, size]} if {@code first}, else {@code [batch, sequence, heads, size]}
 * @param first whether the head axis comes before the sequence axis
 */
record Heads(String value, boolean first) {
    /** Splits {@code [batch, sequence, heads · size]} into heads. */
    static Heads of(RewriteContext c, String x, long count, long size) {
        return new Heads(c.reshape(x, 0, 0, count, size), false);
    }

    /** A copy with another value of the same layout. */
    Heads with(String changed) {
        return new Heads(changed, first);
    }

    /** The value as {@code [batch, heads, sequence, size]}. */
    String headFirst(RewriteContext c) {
        return first ? value : c.transpose(value, 0, 2, 1, 3);
    }

    /** The value as {@code [batch, heads, size, sequence]}. */
    String transposed(RewriteContext c) {
        return first ? c.transpose(value, 0, 1, 3, 2) : c.transpose(value, 0, 2, 3, 1);
    }

    /**
     * Merges the heads of {@code [batch, heads, sequence, size]} into {@code [batch, sequence, width]}, with width
     * heads · size.
     */
    static String merge(RewriteContext c, String x, long width) {
        return c.reshape(c.transpose(x, 0, 2, 1, 3), 0, 0, width);
    }
}
