// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.emit;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.diag.UserException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class ModelFolderTest {
    @TempDir
    private Path folder;

    private void put(String... names) throws IOException {
        for (String name : names) {
            Files.writeString(folder.resolve(name), "x");
        }
    }

    @Test
    void filesAreTheModel() throws IOException {
        put("any.name");
        assertThat(ModelFolder.of(folder.resolve("any.name")).model()).hasFileName("any.name");
        assertThat(ModelFolder.of(Path.of("pom.xml")).folder()).isAbsolute();
    }

    @Test
    void foldersNameTheirModel() throws IOException {
        put("only.onnx");
        assertThat(ModelFolder.of(folder).model()).hasFileName("only.onnx");
        put("model.onnx");
        assertThat(ModelFolder.of(folder).model()).hasFileName("model.onnx");
        Files.writeString(
                folder.resolve("genai_config.json"), "{\"model\": {\"decoder\": {\"filename\": \"only.onnx\"}}}");
        assertThat(ModelFolder.of(folder).model()).hasFileName("only.onnx");
        put("genai_config.json");
        assertThat(ModelFolder.of(folder).model()).hasFileName("model.onnx");
    }

    /** Model hubs: ONNX files in a folder of their own, below what describes them. */
    @Test
    void foldersOfHubs() throws IOException {
        Files.createDirectory(folder.resolve("onnx"));
        put("config.json", "tokenizer.json", "onnx/model.onnx", "onnx/model_q4.onnx", "onnx/model_fp16.onnx");
        ModelFolder named = ModelFolder.of(folder);

        assertThat(named.model()).isEqualTo(folder.resolve("onnx/model.onnx"));
        assertThat(named.home()).isEqualTo(folder);
        assertThat(named.isInner()).isTrue();
        assertThat(named.companions()).hasSize(2);
        assertThat(named.companion("config.json")).isPresent();
        assertThat(named.others()).containsExactly("model_fp16.onnx", "model_q4.onnx");

        ModelFolder file = ModelFolder.of(folder.resolve("onnx/model_q4.onnx"));
        assertThat(file.home()).isEqualTo(folder);
        assertThat(file.companions()).hasSize(2);
        assertThat(ModelFolder.of(folder.resolve("onnx")).home()).isEqualTo(folder);

        put("onnx/config.json");
        assertThat(ModelFolder.of(folder.resolve("onnx/model.onnx")).companions())
                .containsExactly(folder.resolve("onnx/config.json"));
    }

    @Test
    void decodersOfSeveralFilesAreFound() throws IOException {
        Files.createDirectory(folder.resolve("onnx"));
        put("config.json", "onnx/encoder_model.onnx", "onnx/decoder_model.onnx");
        assertThat(ModelFolder.of(folder).model()).hasFileName("decoder_model.onnx");
        put("decoder_model_merged.onnx");
        assertThat(ModelFolder.of(folder).model()).isEqualTo(folder.resolve("decoder_model_merged.onnx"));
    }

    @Test
    void foldersWithoutAnUnambiguousModel() throws IOException {
        assertThatThrownBy(() -> ModelFolder.of(folder.resolve("none")))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("there is no model file or folder");
        assertThatThrownBy(() -> ModelFolder.of(folder))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("holds no .onnx file");
        put("b.onnx", "a.onnx");
        assertThatThrownBy(() -> ModelFolder.of(folder))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("a.onnx, b.onnx");
        Files.createDirectory(folder.resolve("onnx"));
        put("onnx/c.onnx");
        assertThatThrownBy(() -> ModelFolder.of(folder)).hasMessageContaining("onnx/c.onnx");
    }

    @Test
    void companionsAreTheFilesThatServeTheModel() throws IOException {
        put("model.onnx", "other.onnx", "model.onnx.data", "model.onnx_data", "w.bin", "w.safetensors", ".hidden.json");
        put("config.json", "tokenizer.json", "tokenizer.model", "merges.txt", "chat_template.jinja", "README.md");
        put("model.safetensors.index.json");
        ModelFolder found = ModelFolder.of(folder);

        assertThat(found.companions().stream().map(file -> file.getFileName().toString()))
                .containsExactly(
                        "chat_template.jinja", "config.json", "merges.txt", "tokenizer.json", "tokenizer.model");
        assertThat(found.companion("config.json")).isPresent();
        assertThat(found.companion("nothing.json")).isEmpty();
    }

    @Test
    void filesBesideALoneModelAreNotItsCompanions() throws IOException {
        put("model.onnx", "notes.txt");

        assertThat(ModelFolder.of(folder.resolve("model.onnx")).companions()).isEmpty();
        assertThat(ModelFolder.of(folder).companions()).hasSize(1);
        put("config.json");
        assertThat(ModelFolder.of(folder.resolve("model.onnx")).companions()).hasSize(2);
    }
}
