// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.withinPercentage;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Two equal runs at the same time, in processes of their own and with one work folder, give the same result. */
@Tag("ort")
class EqualRunsTest {
    @TempDir
    private Path folder;

    /** A run in a process of its own. */
    private final class Running {
        private final Process process;
        private final BufferedReader lines;
        private final List<String> said = new ArrayList<>();

        Running(Object... arguments) throws IOException {
            List<String> command = Cli.command(arguments);
            command.addAll(List.of(
                    "--threads",
                    "1",
                    "--verbose",
                    "--work-dir",
                    folder.resolve("work").toString()));
            process = new ProcessBuilder(command).redirectErrorStream(true).start();
            lines = new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8));
        }

        /** Reads on up to a line that contains a text, or to the end. */
        Running until(String text) throws IOException {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                said.add(line);
                if (line.contains(text)) {
                    break;
                }
            }
            return this;
        }

        /** Reads up to a line that contains a text, and stops the process there until it is to end. */
        Running pausedAt(String text) throws IOException, InterruptedException {
            until(text);
            signal("STOP");
            return this;
        }

        private void signal(String name) throws IOException, InterruptedException {
            new ProcessBuilder("kill", "-" + name, Long.toString(process.pid()))
                    .start()
                    .waitFor();
        }

        int end() throws IOException, InterruptedException {
            signal("CONT");
            until("\0");
            return process.waitFor();
        }

        String text() {
            return String.join("\n", said);
        }
    }

    private List<String> leftInWorkFolder(String prefix) throws IOException {
        try (Stream<Path> files = Files.list(folder.resolve("work"))) {
            return files.map(file -> file.getFileName().toString())
                    .filter(name -> name.startsWith(prefix))
                    .toList();
        }
    }

    private Running recover(String out, Object... more) throws IOException {
        List<Object> arguments = new ArrayList<>(List.of(
                "recover",
                Cli.testModel("llama-gqa-d"),
                "-o",
                folder.resolve(out),
                "--data",
                Cli.tokens(folder),
                "--eval",
                folder.resolve("tokens.jsonl"),
                "--seq-len",
                "8",
                "--batch",
                "4",
                "--steps",
                "12",
                "--dropout",
                "0",
                "--eval-every",
                "2"));
        arguments.addAll(List.of(more));
        return new Running(arguments.toArray());
    }

    @Test
    void trainings() throws IOException, InterruptedException {
        Running first = recover("first.onnx").pausedAt("step 2 of 12");
        Running second = recover("second.onnx").pausedAt("step 2 of 12");
        Running resumed = recover("third.onnx", "--resume");

        // Both folders are taken, and there is no third one to go on from.
        int code = resumed.end();
        assertThat(first.end()).as(first.text()).isZero();
        assertThat(second.end()).as(second.text()).isZero();
        assertThat(second.text()).contains("such a training goes on in another process, so this one has a folder");
        // The runtime's training gives weights that differ in their last bits.
        assertThat(perplexity(second)).isCloseTo(perplexity(first), withinPercentage(0.01));
        assertThat(folder.resolve("second.onnx")).hasSize(Files.size(folder.resolve("first.onnx")));
        assertThat(code).as(resumed.text()).isOne();
        assertThat(resumed.text())
                .contains("such a training goes on in another process", "wait for its end, or leave out --resume");
        assertThat(leftInWorkFolder("recover-")).isEmpty();
    }

    /** The perplexity after the training, the last number of its line. */
    private static double perplexity(Running run) {
        String line = run.said.stream()
                .filter(text -> text.startsWith("held-out perplexity"))
                .findFirst()
                .orElseThrow();
        return Double.parseDouble(line.substring(line.lastIndexOf(' ') + 1));
    }

    @Test
    void prunings() throws IOException, InterruptedException {
        List<Running> runs = new ArrayList<>();
        for (String out : List.of("first.onnx", "second.onnx")) {
            runs.add(new Running(
                            Cli.testModel("stories-llama"),
                            "-o",
                            folder.resolve(out),
                            "--calibration",
                            Path.of("testmodels", "tokens.jsonl"),
                            "--samples",
                            "8",
                            "--ratio",
                            "0.1")
                    .pausedAt("pass 2 of"));
        }
        for (Running run : runs) {
            assertThat(run.end()).as(run.text()).isZero();
        }

        assertThat(runs.get(1).text())
                .contains("such a run goes on in another process, so this one has checkpoints of its own");
        assertThat(Files.mismatch(folder.resolve("first.onnx"), folder.resolve("second.onnx")))
                .isEqualTo(-1);
        assertThat(leftInWorkFolder("run-")).isEmpty();
        assertThat(leftInWorkFolder("gradients-")).isEmpty();
    }
}
