// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Path;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import picocli.CommandLine;
import picocli.CommandLine.Help.Ansi;

/** docs/cli.md contains the text that {@code --help} prints. */
@Tag("ort")
class HelpDocumentTest {
    private static final int WIDTH = 100;

    @Test
    void documentIsCurrent() throws IOException {
        CommandLine main = Main.commandLine().setUsageHelpWidth(WIDTH);
        StringBuilder text = new StringBuilder("# Command line\n\nThe text of `--help`.\n");
        section("onnx-prune", main, text);
        main.getSubcommands().forEach((name, command) -> section("onnx-prune " + name, command, text));

        Golden.assertSame(Path.of("docs", "cli.md"), text.toString());
    }

    private static void section(String title, CommandLine command, StringBuilder text) {
        text.append("\n## ").append(title).append("\n\n```text\n");
        text.append(command.getUsageMessage(Ansi.OFF).strip().replaceAll("(?m)\\s+$", ""));
        text.append("\n```\n");
    }

    @Test
    void helpIsPrinted() {
        assertThat(Cli.run("--help").succeeded().out()).contains("Usage: onnx-prune ");
        assertThat(Cli.run("inspect", "--help").succeeded().out()).contains("Usage: onnx-prune inspect ");
        assertThat(Cli.run("eval", "--help").succeeded().out()).contains("Usage: onnx-prune eval ");
        assertThat(Cli.run("--version").succeeded().out()).startsWith("onnx-prune ");
        assertThat(Cli.run("eval", "--version").succeeded().out()).startsWith("onnx-prune ");
    }
}
