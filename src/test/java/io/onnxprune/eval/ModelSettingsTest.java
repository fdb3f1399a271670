// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.RecordedLog;
import io.onnxprune.diag.Log;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class ModelSettingsTest {
    @TempDir
    private Path folder;

    private ModelSettings read(Log log) {
        return ModelSettings.beside(folder.resolve("model.onnx"), log);
    }

    private void file(String name, String content) throws IOException {
        Files.writeString(folder.resolve(name), content);
    }

    @Test
    void nothingIsKnownWithoutFiles() {
        ModelSettings found = read(Log.NONE);
        assertThat(found.bos()).isEmpty();
        assertThat(found.eos()).isEmpty();
        assertThat(found.context()).isEmpty();
        assertThat(found.fit(256)).isEqualTo(256);
        found.requireLength(1 << 20, "rows");
    }

    @Test
    void theGenerationConfigurationHasPrecedence() throws IOException {
        file("config.json", "{\"bos_token_id\": 5, \"eos_token_id\": 6, \"max_position_embeddings\": 64}");
        assertThat(read(Log.NONE).bos()).hasValue(5);
        file("generation_config.json", "{\"bos_token_id\": [8, 9], \"eos_token_id\": [10, 11]}");
        ModelSettings found = read(Log.NONE);
        assertThat(found.bos()).hasValue(8);
        assertThat(found.eos()).containsExactly(10L, 11L);
        assertThat(found.fit(256)).isEqualTo(64);
        assertThat(found.contextSource()).isEqualTo("max_position_embeddings in config.json");
    }

    @Test
    void entriesInsideOtherPartsAreFound() throws IOException {
        file("config.json", "{\"bos_token_id\": null, \"text_config\": {\"bos_token_id\": 2, \"n_positions\": 32}}");
        assertThat(read(Log.NONE).bos()).hasValue(2);
        assertThat(read(Log.NONE).fit(256)).isEqualTo(32);
        file("genai_config.json", "{\"model\": {\"eos_token_id\": 4, \"context_length\": 16}}");
        assertThat(read(Log.NONE).eos()).containsExactly(4L);
        assertThat(read(Log.NONE).contextSource()).isEqualTo("context_length in genai_config.json");
    }

    @Test
    void aFileThatIsNotJsonIsIgnoredWithAWarning() throws IOException {
        file("config.json", "{\"bos_token_id\": ");
        RecordedLog log = new RecordedLog();
        assertThat(read(log).bos()).isEmpty();
        assertThat(log.lines())
                .singleElement()
                .satisfies(line -> assertThat(line).startsWith("warning: ").contains("config.json is ignored"));
    }
}
