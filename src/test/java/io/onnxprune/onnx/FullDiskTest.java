// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.onnx;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Model;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** A disk that becomes full while a model is written, simulated by the device /dev/full. */
class FullDiskTest {
    private static final Path FULL = Path.of("/dev/full");

    @TempDir
    private Path folder;

    @ParameterizedTest
    @CsvSource({"small.onnx.part,false", "small.onnx.data.part,true"})
    void noFileIsLeftBehind(String temporary, boolean external) throws IOException {
        assumeTrue(Files.exists(FULL));
        Files.createSymbolicLink(folder.resolve(temporary), FULL);
        Model model = ModelReader.read(Path.of("testmodels", "llama-gqa-d", "model.onnx"));

        assertThatThrownBy(() -> ModelWriter.write(model, folder.resolve("small.onnx"), external))
                .isInstanceOf(UserException.class)
                .hasMessageContainingAll("cannot write ", "No space left on device", "nothing was written");

        assertThat(folder).isEmptyDirectory();
    }
}
