// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.StringJoiner;

/**
 * A plain text table: columns as wide as their content, numbers to the right.
 *
 * <p>Not picocli's {@code TextTable}: that wants to be told widths, aligns nothing to the right, and reads {@code @|} in a cell, which is
 * what somebody named a node, as markup.
 */
final class Table {
    private final List<Object[]> rows = new ArrayList<>();
    private final boolean[] right;

    /** @param headings a leading {@code >} aligns the column to the right */
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
        rows.add(cells);
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
            // A width of zero is none to a format.
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
