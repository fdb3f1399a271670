// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import java.util.Map;

/** Index vectors and causal masks; equal ones are shared by all operators of a model. */
final class Ranges {
    /** The value that is added to the score of a masked key. */
    static final float LOWEST = -Float.MAX_VALUE;

    private Ranges() {}

    /** One extent of a value as an int64 scalar. */
    static String extent(RewriteContext c, String value, int axis) {
        return c.shared("extent " + value + " " + axis, () -> {
            String shape = c.add(
                    "Shape",
                    java.util.List.of(value),
                    Map.of("start", new Attribute.Int(axis), "end", new Attribute.Int(axis + 1L)));
            return c.add("Squeeze", shape);
        });
    }

    /** An integer tensor of one element, as an int64 scalar. */
    static String scalar(RewriteContext c, String value) {
        return c.shared("scalar " + value, () -> c.add("Squeeze", c.cast(value, DType.INT64)));
    }

    /**
     * The int64 vector {@code 0, 1, .. count - 1}.
     *
     * @param count name of an int64 scalar
     */
    static String upTo(RewriteContext c, String count) {
        return c.shared(
                "range " + count,
                () -> c.add("Range", c.graph().index(0), count, c.graph().index(1)));
    }

    /**
     * An additive causal mask {@code [queries, keys]}: 0 where the key is not later than the query.
     *
     * @param queries name of an int64 scalar, the number of queries
     * @param keys name of an int64 scalar, the number of keys
     * @param window number of keys that a query attends to, including its own; -1 for all
     */
    static String causal(RewriteContext c, String queries, String keys, long window) {
        return c.shared("causal " + queries + " " + keys + " " + window, () -> {
            String column = upTo(c, keys);
            String row = c.unsqueeze(upTo(c, queries), 1);
            String visible = c.add("LessOrEqual", column, row);
            if (window >= 0) {
                String before = c.add("Sub", row, c.graph().index(window));
                visible = c.add("And", visible, c.add("Greater", column, before));
            }
            return additive(c, visible, LOWEST);
        });
    }

    /** The additive form of a boolean mask: 0 where it is true, {@code masked} elsewhere. */
    static String additive(RewriteContext c, String visible, float masked) {
        return c.add("Where", visible, c.scalar(0), c.scalar(masked));
    }
}
