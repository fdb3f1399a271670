// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.onnx;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.catchThrowable;

import ai.onnx.proto.OnnxMl.ModelProto;
import ai.onnx.proto.OnnxMl.TensorProto;
import io.onnxprune.TestModels;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Bytes;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Tensor;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.assertj.core.api.AbstractThrowableAssert;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Every file that cannot be read or written gives an error of one sentence. */
class BadFilesTest {
    /** Repetitions of the test with damaged files; {@code -Donnx.fuzz=20} for a longer search. */
    private static final int FUZZ = Integer.getInteger("onnx.fuzz", 1);

    @TempDir
    private Path folder;

    @Test
    void aMissingFile() {
        assertRefused(folder.resolve("none.onnx")).hasMessageStartingWith("there is no model file ");
    }

    @Test
    void aFolder() {
        assertRefused(folder).hasMessageStartingWith("there is no model file ");
    }

    @Test
    void anEmptyFile() throws IOException {
        assertRefused(file(new byte[0])).hasMessageEndingWith(" is empty");
    }

    @ParameterizedTest
    @ValueSource(
            strings = {"{\"config\": 1}", "PK\u0003\u0004 a zip file", "#!/bin/sh\nexit 0\n", "\u0000\u0000\u0000\u0000"
            })
    void noProtobuf(String content) throws IOException {
        assertRefused(file(content.getBytes(java.nio.charset.StandardCharsets.ISO_8859_1)))
                .hasMessageContaining(" is not an ONNX model");
    }

    @Test
    void aModelWithoutAGraph() throws IOException {
        assertRefused(file(ModelProto.newBuilder().setIrVersion(8).build().toByteArray()))
                .hasMessageContaining("is not an ONNX model: it holds no graph");
    }

    @Test
    void aGraphWithoutNodesAndOutputs() throws IOException {
        assertRefused(file(Protos.model(Protos.graph().clearNode().clearOutput())
                        .build()
                        .toByteArray()))
                .hasMessageContaining("is not an ONNX model: it holds no graph");
    }

    @Test
    void aGraphWithoutNodesThatPassesItsInputOnIsRead() throws IOException {
        Model model = ModelReader.read(Protos.write(
                folder, Protos.model(Protos.graph().clearNode().setOutput(0, Protos.floats("x", 4)))));

        assertThat(model.graph().nodes()).isEmpty();
        assertThat(model.graph().outputs()).hasSize(1);
    }

    @Test
    void aFileThatIsCutOff() throws IOException {
        byte[] intact = Files.readAllBytes(TestModels.file("llama-gqa-b"));
        for (int percent : new int[] {10, 50, 90, 99}) {
            assertRefused(file(Arrays.copyOf(intact, (int) ((long) intact.length * percent / 100))))
                    .hasMessageContaining("cut off");
        }
        assertRefused(file(Arrays.copyOf(intact, intact.length - 1))).hasMessageContaining("cut off");
    }

    /** Damage may remain undetected, but every reported failure is a user's error. */
    @Test
    void damagedBytes() throws IOException {
        byte[] small = Protos.model(Protos.graph()
                        .addInitializer(external("weights.bin", "0", "16"))
                        .addInitializer(TensorProto.newBuilder()
                                .setName("typed")
                                .setDataType(DType.FLOAT.code())
                                .addDims(2)
                                .addFloatData(1)
                                .addFloatData(2)))
                .build()
                .toByteArray();
        Files.write(folder.resolve("weights.bin"), new byte[16]);
        Random random = new Random(11);
        List<String> wrong = new ArrayList<>();
        for (int round = 0; round < 1000 * FUZZ; round++) {
            byte[] damaged = small.clone();
            for (int i = 0; i <= round % 3; i++) {
                damaged[random.nextInt(damaged.length)] = (byte) random.nextInt(256);
            }
            Path file = file(damaged);
            Throwable thrown = catchThrowable(() -> ModelReader.read(file));
            if (thrown != null && !(thrown instanceof UserException)) {
                wrong.add("round " + round + ": " + thrown);
            }
        }
        assertThat(wrong).isEmpty();
    }

    @Test
    void missingExternalData() throws IOException {
        assertRefused(withExternal("gone.bin", "0", "16"))
                .hasMessageContaining("gone.bin")
                .hasMessageContaining("is missing; put it back beside the model");
    }

    @Test
    void shortExternalData() throws IOException {
        Files.write(folder.resolve("short.bin"), new byte[30]);
        assertRefused(withExternal("short.bin", "16", "16"))
                .hasMessageContaining("short.bin is too short (30 bytes)")
                .hasMessageContaining("initializer \"w\", which needs 16 bytes from 16 on");
        assertRefused(withExternal("short.bin", "-4", "16")).hasMessageContaining("negative external data offset: -4");
        assertRefused(withExternal("short.bin", Long.toString(Long.MAX_VALUE - 3), "16"))
                .hasMessageContaining("is too short");
    }

    @ParameterizedTest
    @ValueSource(strings = {"../escape.bin", "inner/../../escape.bin", "..", "", "nul\u0000.bin"})
    void externalDataOutsideTheFolder(String location) throws IOException {
        Path inner = Files.createDirectory(folder.resolve("model"));
        Files.write(folder.resolve("escape.bin"), new byte[16]);
        assertRefused(Protos.write(inner, Protos.model(Protos.graph().addInitializer(external(location, "0", "16")))))
                .hasMessageContaining("keeps its data in \"" + location.replace("\0", "\\u0000") + '"')
                .hasMessageContaining("not inside the model's folder; move the data beside the model");
    }

    @Test
    void absoluteExternalData() throws IOException {
        Path data = Files.write(folder.resolve("inside.bin"), new byte[16]);
        assertRefused(withExternal(data.toAbsolutePath().toString(), "0", "16"))
                .hasMessageContaining("not inside the model's folder; move the data beside the model");
    }

    @Test
    void externalDataThroughALinkThatLeavesTheFolder() throws IOException {
        Path inner = Files.createDirectory(folder.resolve("model"));
        Files.write(folder.resolve("secret.bin"), new byte[16]);
        Files.createSymbolicLink(inner.resolve("weights.bin"), Path.of("..", "secret.bin"));
        Path model =
                Protos.write(inner, Protos.model(Protos.graph().addInitializer(external("weights.bin", "0", "16"))));

        // Whoever packed the folder may have put the link there, to a file of the user's.
        assertRefused(model)
                .hasMessageContaining(
                        "\"weights.bin\", a link that leads out of the model's folder; put the data there");
    }

    /** The caches of model hubs keep all files of a model in a store, and put links to them into a folder. */
    @Test
    void aModelAndItsDataThroughLinks() throws IOException {
        Path store = Files.createDirectory(folder.resolve("blobs"));
        Path inner = Files.createDirectories(folder.resolve("snapshots/1"));
        Files.write(store.resolve("a1"), new byte[16]);
        Path stored =
                Protos.write(store, Protos.model(Protos.graph().addInitializer(external("weights.bin", "0", "16"))));
        Path model = Files.createSymbolicLink(
                inner.resolve("model.onnx"), Path.of("../../blobs").resolve(stored.getFileName()));
        Files.createSymbolicLink(inner.resolve("weights.bin"), Path.of("../../blobs/a1"));
        Path linked = Files.createSymbolicLink(folder.resolve("linked"), inner);

        assertThat(ModelReader.read(model).graph().initializers()).containsKey("w");
        assertThat(ModelReader.read(linked.resolve("model.onnx")).graph().initializers())
                .containsKey("w");
    }

    @Test
    void twoInitializersOfOneName() throws IOException {
        TensorProto twice =
                external("w.bin", "0", "16").toBuilder().setName("twice").build();
        Files.write(folder.resolve("w.bin"), new byte[16]);

        assertRefused(Protos.write(
                        folder,
                        Protos.model(Protos.graph().addInitializer(twice).addInitializer(twice))))
                .hasMessageContaining("initializer \"twice\" of ")
                .hasMessageEndingWith(" is there twice; the model is damaged");
    }

    @Test
    void externalDataOfTheWrongLength() throws IOException {
        Files.write(folder.resolve("data.bin"), new byte[64]);
        assertRefused(withExternal("data.bin", "0", "20"))
                .hasMessageContaining("declares 20 bytes of external data where its shape needs 16");
        assertRefused(withExternal("data.bin", "four", "16")).hasMessageContaining("offset that is not a number: four");
    }

    @Test
    void externalDataInAFolderBelowIsRead() throws IOException {
        Files.createDirectory(folder.resolve("data"));
        Files.write(
                folder.resolve("data/w.bin"),
                new byte[] {0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16});
        Model model = ModelReader.read(withExternal("data/w.bin", "4", null));

        assertThat(model.externalData()).isTrue();
        assertThat(model.graph().initializers().get("w").bytes().toArray())
                .isEqualTo(new byte[] {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16});
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void aFailedWriteLeavesNothingBehind(boolean externalData) throws IOException {
        Path deleted = Files.write(folder.resolve("gone.bin"), new byte[1 << 20]);
        Model model = withWeight(Bytes.of(deleted, 0, 1 << 20));
        Path target = folder.resolve("out/model.onnx");
        Files.createDirectory(target.getParent());
        Files.writeString(target, "what was here before");
        Files.delete(deleted);

        assertThatThrownBy(() -> ModelWriter.write(model, target, externalData))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("gone.bin");
        assertThat(names(target.getParent())).containsExactly("model.onnx");
        assertThat(target).hasContent("what was here before");
    }

    @Test
    void aFolderThatIsAFile() throws IOException {
        Path file = Files.writeString(folder.resolve("file"), "");
        Model model = withWeight(Bytes.of(java.nio.ByteBuffer.allocate(1 << 20)));

        assertThatThrownBy(() -> ModelWriter.write(model, file.resolve("model.onnx"), false))
                .isInstanceOf(UserException.class)
                .hasMessageEndingWith("a file is in the place of its folder; nothing was written")
                .hasMessageNotContaining("\n");
    }

    @Test
    void aModelMayBeOverwrittenByItself() throws IOException {
        Path file = folder.resolve("model.onnx");
        ModelWriter.write(ModelReader.read(TestModels.file("llama-g16-e-fp32")), file, true);
        Map<String, ByteBuffer> before = contents(ModelReader.read(file));
        ModelWriter.write(ModelReader.read(file), file, true);
        Map<String, ByteBuffer> external = contents(ModelReader.read(file));
        ModelWriter.write(ModelReader.read(file), file, false);
        Map<String, ByteBuffer> inline = contents(ModelReader.read(file));

        assertThat(external).isEqualTo(before);
        assertThat(inline).isEqualTo(before);
    }

    private static Map<String, ByteBuffer> contents(Model model) {
        Map<String, ByteBuffer> contents = new LinkedHashMap<>();
        model.graph()
                .initializers()
                .forEach((name, tensor) ->
                        contents.put(name, ByteBuffer.wrap(tensor.bytes().toArray())));
        return contents;
    }

    private static List<String> names(Path folder) throws IOException {
        try (var files = Files.list(folder)) {
            return files.map(file -> file.getFileName().toString()).sorted().toList();
        }
    }

    private Model withWeight(Bytes bytes) throws IOException {
        Model model = ModelReader.read(Protos.write(folder, Protos.model(Protos.graph())));
        Graph graph = model.graph();
        return model.withGraph(graph.withInitializers(
                Map.of("w", Tensor.of(DType.UINT8, new long[] {bytes.size()}, bytes))));
    }

    private Path file(byte[] content) throws IOException {
        return Files.write(folder.resolve("model.onnx"), content);
    }

    private Path withExternal(String location, String offset, String length) throws IOException {
        return Protos.write(folder, Protos.model(Protos.graph().addInitializer(external(location, offset, length))));
    }

    private static TensorProto external(String location, String offset, String length) {
        TensorProto.Builder proto = TensorProto.newBuilder()
                .setName("w")
                .setDataType(DType.FLOAT.code())
                .addDims(4)
                .setDataLocation(TensorProto.DataLocation.EXTERNAL)
                .addExternalData(ModelWriter.entry("location", location))
                .addExternalData(ModelWriter.entry("offset", offset));
        if (length != null) {
            proto.addExternalData(ModelWriter.entry("length", length));
        }
        return proto.build();
    }

    private static AbstractThrowableAssert<?, ? extends Throwable> assertRefused(Path file) {
        return assertThatThrownBy(() -> ModelReader.read(file))
                .isInstanceOf(UserException.class)
                .hasMessageContaining(file.getParent().toString())
                .hasMessageNotContaining("\n")
                .hasMessageNotContaining(". ");
    }
}
