// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.StringJoiner;

/**
 * A plain text table. Columns are as wide as their content, and numbers are aligned to the right.
 *
 * <p>Picocli's {@code TextTable} does not fit: it needs given widths, cannot align to the right, and interprets {@code
 * @|} in a cell as markup, although a node may have such a name.
 */
final class Table {
    private final List<Object[]> rows = new ArrayList<>();
    private final boolean[] right;

    /**
     * Creates a table without rows.
     *
     * @param headings headings of the columns; a leading {@code >} aligns the column to the right
     */
    Table(String... headings) {
        right = new boolean[headings.length];
        Object[] row = new Object[headings.length];
        for (int i = 0; i < headings.length; i++) {
            right[i] = headings[i].startsWith(">");
            row[i] = right[i] ? headings[i].substring(1) : headings[i];
        }
        rows.add(row);
    }

    void row(Object... cells) {
        rows.add(Arrays.stream(cells)
                .map(cell -> Visible.line(String.valueOf(cell)))
                .toArray());
    }

    boolean isEmpty() {
        return rows.size() == 1;
    }

    @Override
    public String toString() {
        StringJoiner format = new StringJoiner("  ");
        for (int i = 0; i < right.length; i++) {
            int column = i;
            int width = rows.stream()
                    .mapToInt(row -> String.valueOf(row[column]).length())
                    .max()
                    .orElseThrow();
            // A format cannot have a width of zero.
            format.add("%" + (right[i] ? "" : "-") + Math.max(1, width) + "s");
        }
        List<String> lines = new ArrayList<>();
        for (Object[] row : rows) {
            lines.add(String.format(Locale.ROOT, format.toString(), row));
        }
        lines.add(1, "-".repeat(lines.get(0).length()));
        lines.replaceAll(String::stripTrailing);
        return String.join("\n", lines).stripTrailing();
    }
}
