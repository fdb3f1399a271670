// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.emit;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.RecordedLog;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Structure;
import io.onnxprune.emit.Emitter.Emission;
import io.onnxprune.ir.Bytes;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Tensor;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.plan.Plan;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

@Tag("ort")
class EmitterTest {
    private static final String GROUPED = "llama-gqa-d";
    private static final String EXTERNAL = "llama-g16-e-fp32";

    @TempDir
    private Path root;

    /** A copy of a test model with the given files beside it. */
    private ModelFolder input(String model, String... names) throws IOException {
        Path folder = Files.createDirectories(root.resolve("in"));
        try (Stream<Path> files = Files.list(Fixture.folder(model))) {
            for (Path file : files.toList()) {
                Files.copy(file, folder.resolve(file.getFileName()));
            }
        }
        for (String name : names) {
            Files.writeString(folder.resolve(name), name);
        }
        return ModelFolder.of(folder);
    }

    @Test
    void aFolderHoldsWhatServesTheModel() throws IOException {
        ModelFolder input = input(GROUPED, "tokenizer.json", "chat_template.jinja", "old.onnx", "w.safetensors");
        Path out = root.resolve("a/out");
        Plan plan = Fixture.plan("kv_heads.0=3", "kv_heads.1=3", "kv_heads.2=3", "ffn.0=72", "ffn.1=72", "ffn.2=72");
        Emission emission = Fixture.emit(GROUPED, plan, input, out, Log.NONE);

        assertThat(Fixture.names(out))
                .containsExactly(
                        "chat_template.jinja", "config.json", "generation_config.json", "model.onnx", "tokenizer.json");
        assertThat(emission.files().get(0)).isEqualTo(out.resolve("model.onnx"));
        assertThat(emission.files())
                .hasSize(5)
                .allSatisfy(file -> assertThat(file).isRegularFile());
        assertThat(emission.modelBytes())
                .isEqualTo(Files.size(out.resolve("model.onnx")))
                .isLessThan(emission.bytes());
        assertThat(Fixture.json(out.resolve("config.json"))
                        .get("num_key_value_heads")
                        .asInt())
                .isEqualTo(3);
        assertThat(out.resolve("generation_config.json"))
                .hasSameBinaryContentAs(input.folder().resolve("generation_config.json"));
        Fixture.open(out.resolve("model.onnx"));
    }

    @Test
    void theModelRecordsWhatWasPruned() {
        Path out = root.resolve("small.onnx");
        Plan plan =
                new Plan("", Fixture.plan("ffn.0=72", "kv_heads.2=2", "ffn.1=8").keep(), new int[] {0, 2}, null);
        Emission emission = Fixture.emit(GROUPED, plan, out, Log.NONE);

        assertThat(emission.files()).containsExactly(out);
        Map<String, String> metadata = ModelReader.read(out).metadata();
        assertThat(metadata.get("onnx_prune.version")).isNotEmpty();
        assertThat(metadata.get("onnx_prune.dimensions"))
                .isEqualTo("kv_heads.2: 4 -> 2; ffn.0: 96 -> 72; layers: 3 -> 2");
        assertThat(metadata.get("onnx_prune.kept"))
                .startsWith("{\"dimensions\":{\"kv_heads.2\":[0,1],\"ffn.0\":[0,1,2,")
                .endsWith("71]},\"layers\":[0,2]}");
    }

    @Test
    void removedBlocksAreRecordedToo() {
        Path out = root.resolve("small.onnx");
        Fixture.emit(GROUPED, Fixture.keepBlocks(0, 1, 3, 4, 5), out, Log.NONE);

        assertThat(ModelReader.read(out).metadata())
                .containsEntry("onnx_prune.dimensions", "blocks: 6 -> 5")
                .containsEntry("onnx_prune.kept", "{\"dimensions\":{},\"blocks\":[0,1,3,4,5]}");
    }

    @Test
    void anEmptyPlanChangesNothing() throws IOException {
        for (String name : List.of(GROUPED, EXTERNAL)) {
            Path out = root.resolve(name);
            RecordedLog warnings = new RecordedLog();
            Fixture.emit(name, Plan.keepAll(""), out, warnings);

            for (String companion : List.of("config.json", "genai_config.json", "generation_config.json")) {
                Path original = Fixture.folder(name).resolve(companion);
                assertThat(Files.exists(out.resolve(companion))).isEqualTo(Files.exists(original));
                if (Files.exists(original)) {
                    assertThat(out.resolve(companion)).hasSameBinaryContentAs(original);
                }
            }
            assertThat(ModelReader.read(out.resolve("model.onnx")).metadata())
                    .isEqualTo(ModelReader.read(Fixture.folder(name).resolve("model.onnx"))
                            .metadata());
            assertThat(warnings.warnings()).isEmpty();
        }
    }

    @Test
    void weightsStayOutsideWhereTheyWere() throws IOException {
        Path out = root.resolve("out");
        Emission emission = Fixture.emit(EXTERNAL, Fixture.plan("kv_heads.0=1", "kv_heads.1=1"), out, Log.NONE);

        assertThat(Fixture.names(out)).containsExactly("genai_config.json", "model.onnx", "model.onnx.data");
        assertThat(emission.files().get(1)).isEqualTo(out.resolve("model.onnx.data"));
        assertThat(emission.modelBytes())
                .isEqualTo(Files.size(out.resolve("model.onnx")) + Files.size(out.resolve("model.onnx.data")));
        Fixture.open(out.resolve("model.onnx"));
    }

    @Test
    void weightsGoOutsideOnRequest() throws IOException {
        Structure structure = Fixture.structure("gpt2-g-merged");
        ModelFolder input = ModelFolder.of(Fixture.folder("gpt2-g-merged"));
        OutputTarget target = OutputTarget.of(input, root.resolve("out/small.onnx"));
        Plan plan = Fixture.plan("heads.0=3");
        Emission emission = Fixture.emit(
                new Emitter.Request(Fixture.prune(structure, plan), structure, plan, input, target, true), Log.NONE);

        assertThat(emission.files()).hasSize(2);
        assertThat(Fixture.names(root.resolve("out"))).containsExactly("small.onnx", "small.onnx.data");
    }

    @Test
    void weightsOfTheInputAreNotOverwritten() throws IOException {
        ModelFolder input = input(EXTERNAL);
        Path folder = Files.createDirectory(root.resolve("other"));
        Path data = Files.createSymbolicLink(
                folder.resolve("small.onnx.data"),
                Fixture.folder(EXTERNAL).toAbsolutePath().resolve("model.onnx.data"));

        assertThatThrownBy(
                        () -> Fixture.emit(EXTERNAL, Plan.keepAll(""), input, folder.resolve("small.onnx"), Log.NONE))
                .isInstanceOf(UserException.class)
                .hasMessageContaining(data.toString());
        assertThat(Fixture.names(folder)).containsExactly("small.onnx.data");
        Files.delete(data);
    }

    /** A folder of others may hold a link to a file of the user's. */
    @Test
    void companionsOutsideTheFolderAreNotCopied() throws IOException {
        ModelFolder input = input(GROUPED, "tokenizer.txt");
        Path secret = Files.writeString(root.resolve("secret"), "secret");
        Path link = Files.createSymbolicLink(input.folder().resolve("tokenizer.json"), secret);
        RecordedLog warnings = new RecordedLog();
        Fixture.emit(GROUPED, Fixture.plan("ffn.0=72"), input, root.resolve("out"), warnings);

        assertThat(Fixture.names(root.resolve("out"))).contains("tokenizer.txt").doesNotContain("tokenizer.json");
        assertThat(warnings.warnings()).anyMatch(text -> text.contains(link + " is a link that leads out"));
    }

    @Test
    void companionsThatCannotBeUsedAreWarnedOf() throws IOException {
        ModelFolder input = input(GROUPED, "tokenizer.txt");
        Files.writeString(input.folder().resolve("config.json"), "{broken");
        try (var file = new java.io.RandomAccessFile(
                input.folder().resolve("large.json").toFile(), "rw")) {
            file.setLength((64L << 20) + 1);
        }
        RecordedLog warnings = new RecordedLog();
        Fixture.emit(GROUPED, Fixture.plan("ffn.0=72"), input, root.resolve("out"), warnings);

        assertThat(Fixture.names(root.resolve("out"))).contains("tokenizer.txt").doesNotContain("large.json");
        assertThat(root.resolve("out/config.json")).hasContent("{broken");
        assertThat(warnings.warnings()).hasSize(2).anyMatch(text -> text.contains("large.json"));
    }

    @Test
    void aFailureLeavesNothing() throws IOException {
        for (String out : List.of("new/folder", "new/small.onnx")) {
            assertThatThrownBy(() -> emitFailing(root.resolve(out))).hasMessage("gone");
            assertThat(Fixture.names(root)).isEmpty();
        }
    }

    @Test
    void aFailureLeavesAFolderAsItWas() throws IOException {
        Path out = Files.createDirectory(root.resolve("out"));
        Files.writeString(out.resolve("config.json"), "old");
        Files.writeString(out.resolve("model.onnx"), "old");

        assertThatThrownBy(() -> emitFailing(out)).hasMessage("gone");
        assertThat(Fixture.names(out)).containsExactly("config.json", "model.onnx");
        assertThat(out.resolve("config.json")).hasContent("old");
        assertThat(out.resolve("model.onnx")).hasContent("old");

        Fixture.emit(GROUPED, Plan.keepAll(""), out, Log.NONE);
        assertThat(Fixture.names(out)).containsExactly("config.json", "generation_config.json", "model.onnx");
        Fixture.open(out.resolve("model.onnx"));
    }

    /** A model file that cannot be replaced is detected at the end, when other files are ready. */
    @Test
    void aPlaceThatCannotBeWrittenLeavesNothing() throws IOException {
        Path out = Files.createDirectory(root.resolve("out"));
        Files.createDirectories(out.resolve("model.onnx/x"));
        assertThatThrownBy(() -> Fixture.emit(GROUPED, Plan.keepAll(""), out, Log.NONE))
                .isInstanceOf(UserException.class);
        assertThat(Fixture.names(out)).containsExactly("model.onnx");

        Path second = Files.createDirectory(root.resolve("second"));
        Files.createDirectories(second.resolve("config.json/x"));
        assertThatThrownBy(() -> Fixture.emit(GROUPED, Plan.keepAll(""), second, Log.NONE))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("it is a folder; nothing was written");
        assertThat(Fixture.names(second)).containsExactly("config.json");
    }

    @Test
    void tooLittleSpaceIsFoundBefore() {
        assertThatThrownBy(() -> Emitter.checkSpace(3_200_000_000L, 5_000_000, Path.of("/x")))
                .isInstanceOf(UserException.class)
                .hasMessage(
                        "writing to /x takes 3.2 GB but only 5.0 MB are free; free some space or choose another place");
        Emitter.checkSpace(5, 5, Path.of("/x"));
    }

    private static void emitFailing(Path out) {
        Structure structure = Fixture.structure(GROUPED);
        Model original = structure.analysis().program().model();
        Map<String, Tensor> weights = new LinkedHashMap<>(original.graph().initializers());
        weights.put("failing", Tensor.of(DType.FLOAT, new long[] {1 << 20}, new Failing(4 << 20)));
        ModelFolder input = ModelFolder.of(Fixture.folder(GROUPED));
        Fixture.emit(
                new Emitter.Request(
                        original.withGraph(original.graph().withInitializers(weights)),
                        structure,
                        Plan.keepAll(""),
                        input,
                        OutputTarget.of(input, out),
                        true),
                Log.NONE);
    }

    /** Bytes that cannot be read, like those of a deleted file. */
    private record Failing(long size) implements Bytes {
        @Override
        public void read(long offset, ByteBuffer target) {
            throw new UserException("gone");
        }
    }
}
