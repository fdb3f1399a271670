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
