// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.ir.DType;
import io.onnxprune.ir.Tensor;
import java.io.IOException;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.function.BiConsumer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Files for ONNX Runtime stay as they are, byte for byte: it reads them by its own schemas, not by ours. */
class FlatBufferFilesTest {
    private static final Path EXPECTED = Path.of("src", "test", "resources", "flatbuffers");

    @TempDir
    private Path folder;

    @Test
    void checkpoint() throws IOException {
        assertWritten("parameters.checkpoint", floats(), ParameterFile::write);
    }

    @Test
    void adapter() throws IOException {
        Map<String, Tensor> parameters = floats();
        parameters.remove("scalar"); // which ONNX Runtime takes in a checkpoint only
        parameters.put("half", Tensor.ofFloats(DType.FLOAT16, new long[] {1, 3}, 1, -0.5f, 0.25f));
        assertWritten("parameters.onnx_adapter", parameters, AdapterFile::write);
    }

    @Test
    void adapterOfNothing() throws IOException {
        assertWritten("nothing.onnx_adapter", Map.of(), AdapterFile::write);
    }

    private void assertWritten(String name, Map<String, Tensor> parameters, BiConsumer<Path, Map<String, Tensor>> write)
            throws IOException {
        Path file = folder.resolve(name);
        write.accept(file, parameters);
        assertThat(file).hasSameBinaryContentAs(EXPECTED.resolve(name));
    }

    private static Map<String, Tensor> floats() {
        Map<String, Tensor> parameters = new LinkedHashMap<>();
        parameters.put("layer.0/weight.A", Tensor.ofFloats(DType.FLOAT, new long[] {2, 3}, 1, 2, 3, 4, 5, -6.5f));
        parameters.put("größe", Tensor.ofFloats(DType.FLOAT, new long[] {1}, 0.25f));
        parameters.put("scalar", Tensor.ofFloats(DType.FLOAT, new long[] {}, 7));
        parameters.put("empty", Tensor.ofFloats(DType.FLOAT, new long[] {0, 4}));
        return parameters;
    }
}
