// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.ir.DType;
import java.util.List;

/**
 * Decompositions of rotary position embeddings. Pairs of channels of every head are rotated by an angle that is
 * proportional to the position. Channels i and i + r/2 form a pair, or neighbours when interleaved:
 *
 * <pre>
 *     (a, b) ─▶ (a·cos − b·sin, b·cos + a·sin)  =  (a, b)·(cos, cos) + (b, a)·(−sin, sin)
 * </pre>
 */
final class Rotary {
    /** The position of the head axis. */
    enum Layout {
        /** Axes are batch, sequence, heads, size. */
        BSNH,
        /** Axes are batch, heads, sequence, size. */
        BNSH
    }

    /**
     * The factors of one embedding, broadcastable over heads.
     *
     * @param same factor of a channel
     * @param other factor of the other channel of its pair
     * @param size number of rotated channels of a head
     * @param interleaved whether pairs are neighbours
     */
    record Tables(String same, String other, long size, boolean interleaved) {}

    private Rotary() {}

    static void register(Decompositions.Table table) {
        table.onnx(Rotary::onnx, "RotaryEmbedding");
        table.contrib(Rotary::contrib, "RotaryEmbedding");
    }

    /**
     * RotaryEmbedding of opset 23 (X, cos, sin, position ids). The tables are {@code [positions, r/2]}, or
     * {@code [batch, sequence, r/2]} when no position ids are given.
     */
    private static boolean onnx(RewriteContext c) {
        long heads = c.node().intAttribute("num_heads", 0);
        long size = c.rank(0) == 4 ? c.extent(0, 3) : c.extent(0, 2) / heads;
        embed(c, size, List.of(c.in(1), c.in(2), c.in(3)), 2 * c.extent(1, -1));
        return true;
    }

    /**
     * com.microsoft.RotaryEmbedding (input, position ids, cos, sin). Position ids are {@code [batch, sequence]}, or
     * the position of the first token of every row.
     */
    private static boolean contrib(RewriteContext c) {
        if (c.node().intAttribute("is_packed_batching", 0) != 0) {
            return false;
        }
        long heads = c.node().intAttribute("num_heads", 0);
        long rotated = 2 * c.extent(2, -1);
        long size = c.rank(0) == 4 ? c.extent(0, 3) : heads > 0 ? c.extent(0, 2) / heads : rotated;
        String positions = c.in(1);
        if (c.rank(1) == 1) {
            int sequence = c.rank(0) == 4 ? 2 : 1;
            positions = from(c, positions, Ranges.extent(c, c.in(0), sequence));
        }
        embed(c, size, List.of(c.in(2), c.in(3), positions), rotated);
        return true;
    }

    /** {@code length} consecutive positions from the first element of {@code offset} on, {@code [1, length]}. */
    static String from(RewriteContext c, String offset, String length) {
        return c.shared("positions " + offset + " " + length, () -> {
            String first = c.slice(c.reshape(c.cast(offset, DType.INT64), -1), 0, 0, 1);
            return c.unsqueeze(c.add("Add", Ranges.upTo(c, length), first), 0);
        });
    }

    /**
     * Rotates operand 0 of the operator, which has three or four axes.
     *
     * @param sources names of cos, sin and position ids (empty if none)
     * @param rotated number of rotated channels of a head
     */
    private static void embed(RewriteContext c, long size, List<String> sources, long rotated) {
        boolean interleaved = c.node().intAttribute("interleaved", 0) != 0;
        if (c.rank(0) == 4) {
            Tables tables = tables(c, sources, Layout.BNSH, rotated, interleaved);
            c.result(0, rotate(c, c.in(0), size, tables));
            return;
        }
        long width = c.extent(0, 2);
        Tables tables = tables(c, sources, Layout.BSNH, rotated, interleaved);
        String rotatedHeads = rotate(c, c.reshape(c.in(0), 0, 0, width / size, size), size, tables);
        c.result(0, c.reshape(rotatedHeads, 0, 0, width));
    }

    /**
     * The factors for given positions, shared by all operators with equal sources.
     *
     * @param sources names of cos and sin {@code [positions, r/2]}, and of position ids {@code [batch or 1, sequence]}
     *     or {@code [sequence]}. Without position ids, cos and sin are {@code [batch, sequence, r/2]}
     * @param rotated number of rotated channels of a head, r
     */
    static Tables tables(RewriteContext c, List<String> sources, Layout layout, long rotated, boolean interleaved) {
        String key = "rotary " + String.join(" ", sources) + " " + layout + " " + interleaved;
        String same = c.shared(key + " same", () -> {
            String cos = perHead(c, sources.get(0), sources.get(2), layout);
            return interleaved ? c.unsqueeze(cos, -1) : c.concat(-1, cos, cos);
        });
        String other = c.shared(key + " other", () -> {
            String sin = perHead(c, sources.get(1), sources.get(2), layout);
            sin = interleaved ? c.unsqueeze(sin, -1) : sin;
            return c.concat(-1, c.add("Neg", sin), sin);
        });
        return new Tables(same, other, rotated, interleaved);
    }

    private static String perHead(RewriteContext c, String table, String positions, Layout layout) {
        String rows = positions.isEmpty() ? table : c.gather(table, positions, 0);
        // The head axis is counted from the end, because rows of a shared range have no batch axis.
        return c.unsqueeze(rows, layout == Layout.BSNH ? -2 : -3);
    }

    /**
     * Rotates the first channels of every head of {@code x}, which has four axes and {@code size} channels in each
     * head.
     */
    static String rotate(RewriteContext c, String x, long size, Tables tables) {
        if (tables.size < size) {
            List<String> parts = c.split(x, -1, tables.size, size - tables.size);
            return c.concat(-1, rotate(c, parts.get(0), tables.size, tables), parts.get(1));
        }
        String pairs = tables.interleaved ? c.reshape(x, 0, 0, 0, size / 2, 2) : x;
        long part = tables.interleaved ? 1 : size / 2;
        List<String> halves = c.split(pairs, -1, part, part);
        String swapped = c.concat(-1, halves.get(1), halves.get(0));
        String rotatedHeads = c.add("Add", c.add("Mul", pairs, tables.same), c.add("Mul", swapped, tables.other));
        return tables.interleaved ? c.reshape(rotatedHeads, 0, 0, 0, size) : rotatedHeads;
    }
}
