// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.scripts;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** Runs programs of the folder {@code scripts} as their users do. */
final class Command {
    private static final Path SCRIPTS = Path.of("scripts").toAbsolutePath();

    private Command() {}

    /** What a run ended with; {@code output} has both streams. */
    record Run(int exitCode, String output) {
        String succeeded() {
            assertThat(exitCode).as(output).isZero();
            return output;
        }
    }

    static Path script(String name) {
        return SCRIPTS.resolve(name);
    }

    static Run bash(Map<String, String> environment, Object... words) throws IOException, InterruptedException {
        return run(environment, List.of("bash"), words);
    }

    /** Runs a Java program of one source file, with the class path of the tests. */
    static Run java(Object... words) throws IOException, InterruptedException {
        String java = Path.of(System.getProperty("java.home"), "bin", "java").toString();
        return run(Map.of(), List.of(java, "-cp", System.getProperty("java.class.path")), words);
    }

    private static Run run(Map<String, String> environment, List<String> program, Object... words)
            throws IOException, InterruptedException {
        List<String> command = new ArrayList<>(program);
        for (Object word : words) {
            command.add(word.toString());
        }
        ProcessBuilder builder = new ProcessBuilder(command).redirectErrorStream(true);
        builder.environment().putAll(environment);
        Process process = builder.start();
        process.getOutputStream().close();
        String output = new String(process.getInputStream().readAllBytes(), UTF_8);
        return new Run(process.waitFor(), output);
    }
}
