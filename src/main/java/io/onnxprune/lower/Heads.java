// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

/**
 * Queries, keys or values whose heads are an axis of their own.
 *
 * @param value {@code [batch, heads, sequence, size]} if {@code first}, else {@code [batch, sequence, heads, size]}
 * @param first whether the axis of heads comes before that of the sequence
 */
record Heads(String value, boolean first) {
    /** The heads of {@code [batch, sequence, heads · size]}. */
    static Heads of(RewriteContext s, String x, long count, long size) {
        return new Heads(s.reshape(x, 0, 0, count, size), false);
    }

    /** The same heads with other contents. */
    Heads with(String changed) {
        return new Heads(changed, first);
    }

    /** {@code [batch, heads, sequence, size]}. */
    String headFirst(RewriteContext s) {
        return first ? value : s.transpose(value, 0, 2, 1, 3);
    }

    /** {@code [batch, heads, size, sequence]}. */
    String transposed(RewriteContext s) {
        return first ? s.transpose(value, 0, 1, 3, 2) : s.transpose(value, 0, 2, 3, 1);
    }

    /** {@code [batch, heads, sequence, size]} as {@code [batch, sequence, heads · size]}, {@code width} channels. */
    static String merge(RewriteContext s, String x, long width) {
        return s.reshape(s.transpose(x, 0, 2, 1, 3), 0, 0, width);
    }
}
