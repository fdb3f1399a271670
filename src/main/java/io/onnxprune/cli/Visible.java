// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import java.io.IOException;
import java.io.Writer;

/**
 * Text in which control characters can be seen. Names of nodes and files come from others, and a terminal would obey what they
 * contain. Everything that the program prints goes through here.
 */
final class Visible extends Writer {
    private final Writer target;

    /** A writer that shows control characters of all text but line ends and tabs. */
    Visible(Writer target) {
        this.target = target;
    }

    /** A line in which all control characters are shown, line ends too. */
    static String line(String text) {
        StringBuilder shown = new StringBuilder(text.length());
        append(text, shown);
        for (int i = 0; i < shown.length(); i++) {
            if (isLayout(shown.charAt(i))) {
                String escaped = escaped(shown.charAt(i));
                shown.replace(i, i + 1, escaped);
            }
        }
        return shown.toString();
    }

    private static void append(CharSequence text, StringBuilder shown) {
        for (int i = 0; i < text.length(); i++) {
            char unit = text.charAt(i);
            if (isHidden(unit) && !isLayout(unit)) {
                shown.append(escaped(unit));
            } else {
                shown.append(unit);
            }
        }
    }

    /** Control characters, and those that change the direction of text. */
    private static boolean isHidden(char unit) {
        return Character.isISOControl(unit)
                || unit >= 0x202A && unit <= 0x202E
                || unit >= 0x2066 && unit <= 0x2069
                || unit == 0x2028
                || unit == 0x2029;
    }

    private static boolean isLayout(char unit) {
        return unit == '\n' || unit == '\t' || System.lineSeparator().indexOf(unit) >= 0;
    }

    private static String escaped(char unit) {
        return String.format("\\u%04x", (int) unit);
    }

    @Override
    public void write(char[] text, int start, int length) throws IOException {
        StringBuilder shown = new StringBuilder(length);
        append(new String(text, start, length), shown);
        target.write(shown.toString());
    }

    @Override
    public void flush() throws IOException {
        target.flush();
    }

    @Override
    public void close() throws IOException {
        target.close();
    }
}
