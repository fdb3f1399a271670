// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.PrintWriter;
import java.io.StringWriter;
import org.junit.jupiter.api.Test;

/** A terminal gets no control characters. */
class VisibleTest {
    private static final String ESCAPE = Character.toString(0x1b);

    @Test
    void controlCharactersAreShown() {
        String text = "a" + ESCAPE + "[2Jb\rc" + Character.toString(0x9b) + Character.toString(0x202e) + "\0é😀";

        assertThat(Visible.line(text)).isEqualTo("a\\u001b[2Jb\\u000dc\\u009b\\u202e\\u0000é😀");
    }

    @Test
    void aLineIsOneLine() {
        assertThat(Visible.line("a\nerror: b\tc")).isEqualTo("a\\u000aerror: b\\u0009c");
    }

    @Test
    void theLayoutOfTablesStays() {
        StringWriter printed = new StringWriter();
        PrintWriter writer = new PrintWriter(new Visible(printed), true);
        Table table = new Table("name", ">size");
        table.row("x" + ESCAPE + "\ny", 1);
        writer.println(table);

        assertThat(printed.toString().lines()).hasSize(3);
        assertThat(printed.toString()).contains("x\\u001b\\u000ay").doesNotContain(ESCAPE);
    }
}
