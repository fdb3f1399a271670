// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.diag.UserException;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Tensor;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class ParameterFileTest {
    @TempDir
    private Path folder;

    @Test
    void writtenParametersAreReadBack() {
        Map<String, Tensor> parameters = new LinkedHashMap<>();
        parameters.put("layer.0/weight.A", Tensor.ofFloats(DType.FLOAT, new long[] {2, 3}, 1, 2, 3, 4, 5, -6.5f));
        parameters.put("größe", Tensor.ofFloats(DType.FLOAT, new long[] {1}, 0.25f));
        Path file = folder.resolve("checkpoint");

        ParameterFile.write(file, parameters);
        Map<String, Tensor> read = ParameterFile.read(file);

        assertThat(read.keySet()).containsExactlyElementsOf(parameters.keySet());
        parameters.forEach((name, tensor) -> {
            assertThat(read.get(name).shape()).isEqualTo(tensor.shape());
            assertThat(read.get(name).toFloats()).isEqualTo(tensor.toFloats());
        });
    }

    @Test
    void otherFilesAreRejected() throws IOException {
        Path file = Files.writeString(folder.resolve("text"), "not a flatbuffer at all");

        assertThatThrownBy(() -> ParameterFile.read(file))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("is not a checkpoint");
    }
}
