// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.emit;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** No unfinished file remains beside the target, however a run ends. */
class StagingTest {
    @TempDir
    private Path root;

    /** Another process, which stages a file, reports it, and waits to be stopped. */
    static final class Writer {
        private Writer() {}

        public static void main(String[] arguments) throws Exception {
            Path folder = Path.of(arguments[0]);
            try (Staging staging = new Staging(folder)) {
                staging.write(folder.resolve("model.onnx"), new byte[10]);
                System.out.println("staged");
                Thread.sleep(TimeUnit.MINUTES.toMillis(1));
            }
        }
    }

    private static Process write(Path folder) throws IOException {
        Process process = new ProcessBuilder(
                        Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                        "-XX:TieredStopAtLevel=1",
                        "-cp",
                        System.getProperty("java.class.path"),
                        Writer.class.getName(),
                        folder.toString())
                .redirectErrorStream(true)
                .start();
        BufferedReader lines =
                new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8));
        assertThat(lines.readLine()).isEqualTo("staged");
        return process;
    }

    private static List<Path> in(Path folder) throws IOException {
        try (Stream<Path> all = Files.list(folder)) {
            return all.toList();
        }
    }

    @Test
    void terminatedRunsLeaveNothing() throws Exception {
        Path there = Files.createDirectories(root.resolve("there"));
        for (Path folder : List.of(there, root.resolve("new/folder"))) {
            Process process = write(folder);
            assertThat(in(folder)).hasSize(1);
            process.destroy();
            assertThat(process.waitFor()).isNotZero();
        }

        assertThat(there).isEmptyDirectory();
        assertThat(root.resolve("new")).doesNotExist();
    }

    @Test
    void leftoversOfAKilledRunAreRemovedByTheNext() throws Exception {
        Process alive = write(root);
        Path used = in(root).get(0);
        Process killed = write(root);
        killed.destroyForcibly().waitFor();
        assertThat(in(root)).hasSize(2);

        try (Staging staging = new Staging(root)) {
            staging.write(root.resolve("model.onnx"), new byte[3]);
            assertThat(in(root)).hasSize(2).contains(used);
            staging.commit();
        }

        assertThat(in(root)).containsExactlyInAnyOrder(used, root.resolve("model.onnx"));
        alive.destroyForcibly().waitFor();
    }
}
