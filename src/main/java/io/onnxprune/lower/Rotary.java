// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.ir.DType;
import java.util.List;

/**
 * Rotary position embedding: pairs of channels of every head turn by an angle that grows with the position. Channels i and
 * i + r/2 form a pair, or neighbours when interleaved:
 *
 * <pre>
 *     (a, b) ─▶ (a·cos − b·sin, b·cos + a·sin)  =  (a, b)·(cos, cos) + (b, a)·(−sin, sin)
 * </pre>
 */
final class Rotary {
    /** Where the axis of heads is. */
    enum Layout {
        /** batch, sequence, heads, size. */
        BSNH,
        /** batch, heads, sequence, size. */
        BNSH
    }

    /**
     * The factors of one embedding, ready to broadcast over heads.
     *
     * @param same what a channel is multiplied by
     * @param other what the other channel of its pair is multiplied by
     * @param size how many channels of a head turn
     */
    record Tables(String same, String other, long size, boolean interleaved) {}

    private Rotary() {}

    static void register(Decompositions.Table table) {
        table.onnx(Rotary::onnx, "RotaryEmbedding");
        table.contrib(Rotary::contrib, "RotaryEmbedding");
    }

    /**
     * RotaryEmbedding of opset 23 (X, cos, sin, position ids): tables are {@code [positions, r/2]}, or
     * {@code [batch, sequence, r/2]} where no position ids are given.
     */
    private static boolean onnx(RewriteContext s) {
        long heads = s.node().intAttribute("num_heads", 0);
        long size = s.rank(0) == 4 ? s.extent(0, 3) : s.extent(0, 2) / heads;
        embed(s, size, List.of(s.in(1), s.in(2), s.in(3)), 2 * s.extent(1, -1));
        return true;
    }

    /**
     * com.microsoft.RotaryEmbedding (input, position ids, cos, sin): position ids are {@code [batch, sequence]}, or the
     * position of the first token of every row.
     */
    private static boolean contrib(RewriteContext s) {
        if (s.node().intAttribute("is_packed_batching", 0) != 0) {
            return false;
        }
        long heads = s.node().intAttribute("num_heads", 0);
        long rotated = 2 * s.extent(2, -1);
        long size = s.rank(0) == 4 ? s.extent(0, 3) : heads > 0 ? s.extent(0, 2) / heads : rotated;
        String positions = s.in(1);
        if (s.rank(1) == 1) {
            int sequence = s.rank(0) == 4 ? 2 : 1;
            positions = from(s, positions, Ranges.extent(s, s.in(0), sequence));
        }
        embed(s, size, List.of(s.in(2), s.in(3), positions), rotated);
        return true;
    }

    /** {@code length} positions from the first element of {@code offset} on, {@code [1, length]}. */
    static String from(RewriteContext s, String offset, String length) {
        return s.shared("positions " + offset + " " + length, () -> {
            String first = s.slice(s.reshape(s.cast(offset, DType.INT64), -1), 0, 0, 1);
            return s.unsqueeze(s.add("Add", Ranges.upTo(s, length), first), 0);
        });
    }

    /** Turns operand 0 of the site, of three or four axes; {@code sources} are cos, sin and positions (or empty). */
    private static void embed(RewriteContext s, long size, List<String> sources, long rotated) {
        boolean interleaved = s.node().intAttribute("interleaved", 0) != 0;
        if (s.rank(0) == 4) {
            Tables tables = tables(s, sources, Layout.BNSH, rotated, interleaved);
            s.result(0, rotate(s, s.in(0), size, tables));
            return;
        }
        long width = s.extent(0, 2);
        Tables tables = tables(s, sources, Layout.BSNH, rotated, interleaved);
        String turned = rotate(s, s.reshape(s.in(0), 0, 0, width / size, size), size, tables);
        s.result(0, s.reshape(turned, 0, 0, width));
    }

    /**
     * The factors for given positions, shared by all sites that use the same.
     *
     * @param sources cos and sin, {@code [positions, r/2]}, and position ids {@code [batch or 1, sequence]} or
     *     {@code [sequence]}; where these are empty, cos and sin are {@code [batch, sequence, r/2]} themselves
     * @param rotated how many channels of a head turn, r
     */
    static Tables tables(RewriteContext s, List<String> sources, Layout layout, long rotated, boolean interleaved) {
        String key = "rotary " + String.join(" ", sources) + " " + layout + " " + interleaved;
        String same = s.shared(key + " same", () -> {
            String cos = perHead(s, sources.get(0), sources.get(2), layout);
            return interleaved ? s.unsqueeze(cos, -1) : s.concat(-1, cos, cos);
        });
        String other = s.shared(key + " other", () -> {
            String sin = perHead(s, sources.get(1), sources.get(2), layout);
            sin = interleaved ? s.unsqueeze(sin, -1) : sin;
            return s.concat(-1, s.add("Neg", sin), sin);
        });
        return new Tables(same, other, rotated, interleaved);
    }

    private static String perHead(RewriteContext s, String table, String positions, Layout layout) {
        String rows = positions.isEmpty() ? table : s.gather(table, positions, 0);
        // The heads' axis, counted from the back, since rows of one range have no batch axis.
        return s.unsqueeze(rows, layout == Layout.BSNH ? -2 : -3);
    }

    /** Turns the first channels of every head of {@code x}, which has four axes and {@code size} channels a head. */
    static String rotate(RewriteContext s, String x, long size, Tables tables) {
        if (tables.size < size) {
            List<String> parts = s.split(x, -1, tables.size, size - tables.size);
            return s.concat(-1, rotate(s, parts.get(0), tables.size, tables), parts.get(1));
        }
        String pairs = tables.interleaved ? s.reshape(x, 0, 0, 0, size / 2, 2) : x;
        long part = tables.interleaved ? 1 : size / 2;
        List<String> halves = s.split(pairs, -1, part, part);
        String swapped = s.concat(-1, halves.get(1), halves.get(0));
        String turned = s.add("Add", s.add("Mul", pairs, tables.same), s.add("Mul", swapped, tables.other));
        return tables.interleaved ? s.reshape(turned, 0, 0, 0, size) : turned;
    }
}
