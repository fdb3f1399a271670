// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.diag;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Equal runs at the same time get names of their own, and an ended run gives its name back. */
class ClaimTest {
    @TempDir
    private Path folder;

    /** Another process, which claims a name, prints it and waits to be stopped. */
    static final class Claimer {
        private Claimer() {}

        public static void main(String[] arguments) throws Exception {
            Claim claim = Claim.of(Path.of(arguments[0]), "run", "key", name -> true);
            System.out.println(claim.name());
            Thread.sleep(60_000);
            claim.close();
        }
    }

    private Claim claim() {
        return Claim.of(folder, "run", "key", name -> true);
    }

    private Process other(String expected) throws IOException {
        Process process = new ProcessBuilder(
                        Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                        "-XX:TieredStopAtLevel=1",
                        "-cp",
                        System.getProperty("java.class.path"),
                        Claimer.class.getName(),
                        folder.toString())
                .redirectErrorStream(true)
                .start();
        byte[] line = process.getInputStream().readNBytes(expected.length());
        assertThat(new String(line, StandardCharsets.UTF_8)).isEqualTo(expected);
        return process;
    }

    @Test
    void namesWithinOneProcess() {
        Claim first = claim();
        Claim second = claim();
        try (Claim another = Claim.of(folder, "run", "other", name -> true)) {
            assertThat(another.name()).isEqualTo("run-other");
        }
        assertThat(first.name()).isEqualTo("run-key");
        assertThat(first.isFirst()).isTrue();
        assertThat(second.name()).isEqualTo("run-2-key");
        assertThat(second.isFirst()).isFalse();
        first.close();
        first.close();
        try (Claim third = claim()) {
            assertThat(third.name()).isEqualTo("run-key");
        }
        second.close();
    }

    @Test
    void namesOfOtherProcesses() throws Exception {
        Process first = other("run-key");
        Process second = other("run-2-key");
        try (Claim third = claim()) {
            assertThat(third.name()).isEqualTo("run-3-key");
        }
        first.destroyForcibly().waitFor();
        try (Claim fourth = claim()) {
            assertThat(fourth.name()).isEqualTo("run-key");
            // Claims that are given back must not give up those that remain.
            claim().close();
            Process third = other("run-3-key");
            third.destroyForcibly().waitFor();
        }
        second.destroyForcibly().waitFor();
    }

    @Test
    void aNameWithSomethingToGoOnFromIsPreferred() throws IOException {
        Files.createFile(folder.resolve("run-2-key"));
        try (Claim found = Claim.of(folder, "run", "key", name -> Files.exists(folder.resolve(name)))) {
            assertThat(found.name()).isEqualTo("run-2-key");
            try (Claim next = Claim.of(folder, "run", "key", name -> Files.exists(folder.resolve(name)))) {
                assertThat(next.name()).isEqualTo("run-key");
            }
        }
    }
}
