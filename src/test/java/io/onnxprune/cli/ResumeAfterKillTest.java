// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** A run that is killed at any boundary of its passes goes on there, repeats nothing, and writes the same bytes. */
@Tag("ort")
@Tag("slow")
class ResumeAfterKillTest {
    private static final Pattern PASS = Pattern.compile("pass (\\d+) of (\\d+): (.*)");

    @TempDir
    private Path folder;

    /**
     * Runs the program in a process of its own.
     *
     * @param killAt a part of a line at which it is killed; null to let it end
     * @return the lines that it wrote to standard error
     */
    private List<String> run(String model, String method, String out, boolean resume, String killAt)
            throws IOException, InterruptedException {
        List<String> command = Cli.command(
                Cli.testModel(model).toString(),
                "-o",
                folder.resolve(out).toString(),
                "--method",
                method,
                "--ratio",
                "0.1",
                "--calibration",
                (model.startsWith("stories") ? Path.of("testmodels", "tokens.jsonl") : Cli.tokens(folder)).toString(),
                "--samples",
                "8",
                "--threads",
                "1",
                "--work-dir",
                folder.resolve("work").toString(),
                "--verbose");
        if (resume) {
            command.add("--resume");
        }
        Process process = new ProcessBuilder(command)
                .redirectOutput(ProcessBuilder.Redirect.DISCARD)
                .start();
        List<String> lines = new ArrayList<>();
        try (BufferedReader err =
                new BufferedReader(new InputStreamReader(process.getErrorStream(), StandardCharsets.UTF_8))) {
            for (String line = err.readLine(); line != null; line = err.readLine()) {
                lines.add(line);
                if (killAt != null && line.startsWith(killAt)) {
                    process.destroyForcibly().waitFor();
                    return lines;
                }
            }
        }
        assertThat(process.waitFor()).as(String.join("\n", lines)).isZero();
        return lines;
    }

    /** The passes that a run began, without the one that every run repeats. */
    private static List<String> passes(List<String> lines) {
        List<String> passes = new ArrayList<>();
        for (String line : lines) {
            Matcher matcher = PASS.matcher(line);
            if (matcher.matches() && !matcher.group(3).equals("calibrate")) {
                passes.add(line);
            }
        }
        return passes;
    }

    private void assertSameBytes(String one, String other) throws IOException {
        assertThat(Files.mismatch(folder.resolve(one), folder.resolve(other))).isEqualTo(-1);
        try (var left = Files.list(folder.resolve("work"))) {
            assertThat(left.filter(file -> file.getFileName().toString().startsWith("run-")))
                    .isEmpty();
        }
    }

    /** Each run is killed when it begins the pass behind the one at which it went on. */
    @ParameterizedTest
    @ValueSource(strings = {"auto", "slimgpt"})
    void goesOnAtEveryBoundary(String method) throws IOException, InterruptedException {
        List<String> all = passes(run("llama-gqa-d", method, "whole.onnx", false, null));
        assertThat(all).hasSizeGreaterThan(5);

        for (int boundary = 1; boundary < all.size(); boundary++) {
            List<String> lines = run("llama-gqa-d", method, "resumed.onnx", boundary > 1, all.get(boundary));

            // What follows rewrite is quick and in no checkpoint, so it is done again.
            int first = Math.min(boundary - 1, indexOf(all, "rewrite"));
            assertThat(passes(lines)).containsExactlyElementsOf(all.subList(first, boundary + 1));
            assertThat(folder.resolve("resumed.onnx")).doesNotExist();
        }
        run("llama-gqa-d", method, "resumed.onnx", true, null);
        assertSameBytes("resumed.onnx", "whole.onnx");
    }

    private static int indexOf(List<String> passes, String name) {
        for (int i = 0; i < passes.size(); i++) {
            if (passes.get(i).endsWith(": " + name)) {
                return i;
            }
        }
        throw new AssertionError("no pass " + name);
    }

    /** A stop in the third correction does not repeat the first. The model is one whose corrections take longer than a kill. */
    @Test
    void goesOnWithinCorrections() throws IOException, InterruptedException {
        run("stories-llama", "auto", "whole.onnx", false, null);
        run("stories-llama", "auto", "resumed.onnx", false, "correction 2 of 3");
        List<String> lines = run("stories-llama", "auto", "resumed.onnx", true, null);

        assertThat(lines)
                .anyMatch(line -> line.matches("corrections resume: [12] of 3 are done"))
                .noneMatch(line -> line.startsWith("correction 1 of 3"));
        assertThat(passes(lines).get(0)).endsWith(": correct");
        assertSameBytes("resumed.onnx", "whole.onnx");
    }
}
