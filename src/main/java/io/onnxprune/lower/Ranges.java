// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import java.util.Map;

/** Index vectors and causal masks, made once for all sites that ask for the same. */
final class Ranges {
    /** What is added to the score of a key that must not be seen. */
    static final float LOWEST = -Float.MAX_VALUE;

    private Ranges() {}

    /** One extent of a value as an int64 scalar. */
    static String extent(RewriteContext s, String value, int axis) {
        return s.shared("extent " + value + " " + axis, () -> {
            String shape = s.add(
                    "Shape",
                    java.util.List.of(value),
                    Map.of("start", new Attribute.Int(axis), "end", new Attribute.Int(axis + 1L)));
            return s.add("Squeeze", shape);
        });
    }

    /** An integer tensor of one element as an int64 scalar. */
    static String scalar(RewriteContext s, String value) {
        return s.shared("scalar " + value, () -> s.add("Squeeze", s.cast(value, DType.INT64)));
    }

    /** {@code 0, 1, .. count - 1} for an int64 scalar. */
    static String upTo(RewriteContext s, String count) {
        return s.shared(
                "range " + count,
                () -> s.add("Range", s.graph().index(0), count, s.graph().index(1)));
    }

    /**
     * What a causal mask adds to scores, {@code [queries, keys]}: 0 where the key is no later than the query.
     *
     * @param window how many keys a query sees, its own among them; -1 for all
     */
    static String causal(RewriteContext s, String queries, String keys, long window) {
        return s.shared("causal " + queries + " " + keys + " " + window, () -> {
            String column = upTo(s, keys);
            String row = s.unsqueeze(upTo(s, queries), 1);
            String seen = s.add("LessOrEqual", column, row);
            if (window >= 0) {
                String before = s.add("Sub", row, s.graph().index(window));
                seen = s.add("And", seen, s.add("Greater", column, before));
            }
            return additive(s, seen, LOWEST);
        });
    }

    /** What a boolean mask adds to scores: 0 where it is true, {@code hidden} elsewhere. */
    static String additive(RewriteContext s, String seen, float hidden) {
        return s.add("Where", seen, s.scalar(0), s.scalar(hidden));
    }
}
