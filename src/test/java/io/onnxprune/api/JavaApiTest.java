// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The example of docs/java-api.md compiles and runs. */
@Tag("ort")
class JavaApiTest {
    @TempDir
    private Path folder;

    @Test
    void theExampleRuns() throws Exception {
        Path source = Files.writeString(
                folder.resolve("Example.java"),
                DocumentedCode.files("java-api.md").get("Example.java"));
        DocumentedCode.compile(List.of(source), folder);
        // Opened before: a process can load one ONNX Runtime only.
        TestModels.runtime();
        Path out = folder.resolve("small.onnx");

        String said = run(TestModels.file("stories-llama").toString(), "testmodels/tokens.jsonl", out.toString());

        assertThat(said.lines())
                .contains("1/8 calibrate", "4/8 prune-layerwise", "8/8 verify")
                .contains("the weights of 6 linear layers compensate for pruned units")
                .anyMatch(line -> line.matches("10\\.\\d % of the parameters were pruned; perplexity \\d+\\.\\d+"));
        assertThat(out).exists();
    }

    private String run(String... arguments) throws Exception {
        PrintStream before = System.out;
        ByteArrayOutputStream said = new ByteArrayOutputStream();
        try (URLClassLoader loader = new URLClassLoader(
                        new URL[] {folder.toUri().toURL()}, getClass().getClassLoader());
                PrintStream captured = new PrintStream(said, true, StandardCharsets.UTF_8)) {
            System.setOut(captured);
            loader.loadClass("Example").getMethod("main", String[].class).invoke(null, (Object) arguments);
        } finally {
            System.setOut(before);
        }
        return said.toString(StandardCharsets.UTF_8);
    }
}
