// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.onnx;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.onnxprune.diag.UserException;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** A disk that becomes full while a model is written, simulated by a limit on the size of files. */
class FullDiskTest {
    private static final Path SHELL = Path.of("/bin/bash");

    @TempDir
    private Path folder;

    /** Another process, which writes a model and prints the failure. */
    static final class Writer {
        private Writer() {}

        public static void main(String[] arguments) {
            try {
                ModelWriter.write(
                        ModelReader.read(Path.of("testmodels", "llama-gqa-d", "model.onnx")),
                        Path.of(arguments[0]),
                        Boolean.parseBoolean(arguments[1]));
            } catch (UserException e) {
                System.out.println(e.getMessage());
            }
        }
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void noFileIsLeftBehind(boolean external) throws IOException, InterruptedException {
        assumeTrue(Files.exists(SHELL));
        Process process = new ProcessBuilder(
                        SHELL.toString(),
                        "-c",
                        "ulimit -f 16; exec \"$@\"",
                        "limited",
                        Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                        "-XX:-UsePerfData",
                        "-XX:TieredStopAtLevel=1",
                        "-cp",
                        System.getProperty("java.class.path"),
                        Writer.class.getName(),
                        folder.resolve("small.onnx").toString(),
                        Boolean.toString(external))
                .redirectErrorStream(true)
                .start();
        String said = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);

        assertThat(process.waitFor()).as(said).isZero();
        assertThat(said).contains("cannot write ", "File too large", "nothing was written");
        assertThat(folder).isEmptyDirectory();
    }
}
