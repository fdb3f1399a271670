// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.onnxprune.ir.TensorFile.DamagedException;
import io.onnxprune.ir.TensorFile.Form;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class TensorFileTest {
    @TempDir
    private Path folder;

    private final Tensor half = Tensor.ofFloats(DType.FLOAT16, new long[] {3}, 1, -2, 0.5f);
    private final Tensor floats = Tensor.ofFloats(DType.FLOAT, new long[] {2, 2}, 1, 2, 3, 4.25f);
    private final Tensor sizes = Tensor.ofIndices(DType.INT64, new long[] {1}, 7);
    private final Tensor none = Tensor.ofFloats(DType.FLOAT, new long[] {0, 5});

    private Path file() {
        return folder.resolve("some.safetensors");
    }

    private Map<String, Tensor> tensors() {
        Map<String, Tensor> tensors = new LinkedHashMap<>();
        tensors.put("half/é\"", half);
        tensors.put("floats", floats);
        tensors.put("sizes", sizes);
        tensors.put("none", none);
        return tensors;
    }

    private Map<String, Form> forms() {
        Map<String, Form> forms = new LinkedHashMap<>();
        tensors().forEach((name, tensor) -> forms.put(name, Form.of(tensor)));
        return forms;
    }

    private void write() throws IOException {
        try (TensorFile written = TensorFile.named(file(), forms(), Map.of("about", "ü"))) {
            // In any order.
            for (String name : new String[] {"none", "sizes", "floats", "half/é\""}) {
                written.write(name, tensors().get(name).bytes());
            }
            written.complete();
        }
    }

    @Test
    void writtenTensorsAreReadBack() throws IOException {
        write();
        try (TensorFile read = TensorFile.open(file())) {
            read.requireWhole();
            assertThat(read.metadata()).containsExactly(Map.entry("about", "ü"));
            assertThat(read.names())
                    .containsExactlyInAnyOrderElementsOf(tensors().keySet());
            for (Map.Entry<String, Tensor> entry : tensors().entrySet()) {
                Tensor found = read.tensor(entry.getKey());
                assertThat(found.dtype()).isEqualTo(entry.getValue().dtype());
                assertThat(found.shape()).containsExactly(entry.getValue().shape());
                assertThat(found.bytes().toArray())
                        .containsExactly(entry.getValue().bytes().toArray());
            }
        }
    }

    /** The layout as other programs read it: header length, JSON, and data aligned to the size of its elements. */
    @Test
    void theLayoutIsSafetensors() throws IOException {
        write();
        ByteBuffer bytes = ByteBuffer.wrap(Files.readAllBytes(file())).order(ByteOrder.LITTLE_ENDIAN);
        int length = Math.toIntExact(bytes.getLong());
        assertThat(length % 8).isZero();
        JsonNode header = new ObjectMapper().readTree(bytes.array(), 8, length);
        assertThat(header.at("/floats").toString())
                .isEqualTo("{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[8,24]}");
        assertThat(header.path("half/é\"").path("dtype").asText()).isEqualTo("F16");
        assertThat(header.at("/__metadata__/about").asText()).isEqualTo("ü");
        assertThat(bytes.getFloat(8 + length + 8 + 12)).isEqualTo(4.25f);
        assertThat(bytes.capacity()).isEqualTo(8 + length + 8 + 16 + 6);
    }

    @Test
    void anUnnamedFileIsDeleted() throws IOException {
        TensorFile file = TensorFile.unnamed(folder.resolve("new"), Map.of("floats", Form.of(floats)));
        file.write("floats", floats.bytes());
        file.complete();
        Tensor read = file.tensor("floats");
        file.close();

        assertThat(read.toFloats()).containsExactly(1, 2, 3, 4.25f);
        assertThat(folder.resolve("new")).isEmptyDirectory();
    }

    @Test
    void anIncompleteFileDoesNotReplaceAnother() throws IOException {
        write();
        byte[] before = Files.readAllBytes(file());
        try (TensorFile other = TensorFile.named(file(), forms(), Map.of())) {
            other.write("sizes", sizes.bytes());
            assertThatThrownBy(other::complete).isInstanceOf(IllegalStateException.class);
            assertThatThrownBy(() -> other.write("sizes", sizes.bytes())).isInstanceOf(IllegalArgumentException.class);
            assertThatThrownBy(() -> other.write("floats", sizes.bytes())).isInstanceOf(IllegalArgumentException.class);
            assertThatThrownBy(() -> other.tensor("sizes")).isInstanceOf(IllegalStateException.class);
        }

        assertThat(Files.readAllBytes(file())).containsExactly(before);
        try (Stream<Path> files = Files.list(folder)) {
            assertThat(files).containsExactly(file());
        }
    }

    /** A change of any single byte and a truncation at any place are detected. */
    @Test
    void everyDamageIsDetected() throws IOException {
        write();
        byte[] intact = Files.readAllBytes(file());
        Path damaged = folder.resolve("damaged");
        for (int place = 0; place < intact.length; place++) {
            byte[] changed = intact.clone();
            changed[place] ^= 0x11;
            assertDamaged(damaged, changed, "byte " + place);
            assertDamaged(damaged, Arrays.copyOf(intact, place), "cut at " + place);
        }
        assertDamaged(damaged, Arrays.copyOf(intact, intact.length + 1), "longer");
    }

    private static void assertDamaged(Path file, byte[] content, String what) throws IOException {
        Files.write(file, content);
        assertThatThrownBy(() -> {
                    try (TensorFile read = TensorFile.open(file)) {
                        read.requireWhole();
                    }
                })
                .as(what)
                .isInstanceOf(DamagedException.class);
    }
}
