// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.emit;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.onnxprune.RecordedLog;
import io.onnxprune.plan.Plan;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

@Tag("ort")
class GenaiConfigTest {
    private static final String MODEL = "llama-g16-e-fp32";

    @TempDir
    private Path folder;

    private final RecordedLog warnings = new RecordedLog();

    private JsonNode patched(Plan plan, String fileName) throws IOException {
        ObjectNode config = Fixture.config(
                        folder, Files.readString(Fixture.folder(MODEL).resolve("genai_config.json")))
                .root();
        ((ObjectNode) config.at("/model/decoder"))
                .putObject("sliding_window")
                .putArray("layers")
                .add(0)
                .add(1);
        GenaiConfig.patch(config, Sizes.of(Fixture.structure(MODEL), plan), fileName, warnings);
        return config.at("/model/decoder");
    }

    @Test
    void countsFollowTheStructure() throws IOException {
        JsonNode decoder = patched(
                Fixture.plan("kv_heads.0=1", "kv_heads.1=1", "hidden=48", "ffn.0=64", "ffn.1=32"), "model.onnx");

        assertThat(decoder.get("num_attention_heads").asInt()).isEqualTo(2);
        assertThat(decoder.get("num_key_value_heads").asInt()).isEqualTo(1);
        assertThat(decoder.get("hidden_size").asInt()).isEqualTo(48);
        assertThat(decoder.get("head_size").asInt()).isEqualTo(16);
        assertThat(decoder.get("num_hidden_layers").asInt()).isEqualTo(2);
        assertThat(warnings.warnings()).isEmpty();
    }

    @Test
    void droppedLayersLeaveTheSlidingWindow() throws IOException {
        JsonNode decoder = patched(Fixture.keepLayers(1), "model.onnx");

        assertThat(decoder.get("num_hidden_layers").asInt()).isEqualTo(1);
        assertThat(decoder.at("/sliding_window/layers")).hasToString("[0]");
        assertThat(warnings.warnings()).isEmpty();
    }

    @Test
    void layersCountByTheirCaches() throws IOException {
        assertThat(patched(Fixture.keepBlocks(1, 2, 3), "model.onnx")
                        .get("num_hidden_layers")
                        .asInt())
                .isEqualTo(1);
        assertThat(patched(Fixture.keepBlocks(0, 2, 3), "model.onnx")
                        .get("num_hidden_layers")
                        .asInt())
                .isEqualTo(2);
    }

    @Test
    void headsThatDifferAreThoseOfTheFirstLayer() throws IOException {
        assertThat(patched(Fixture.plan("kv_heads.1=1"), "model.onnx")
                        .get("num_key_value_heads")
                        .asInt())
                .isEqualTo(2);
        assertThat(patched(Fixture.plan("kv_heads.0=1"), "model.onnx")
                        .get("num_key_value_heads")
                        .asInt())
                .isEqualTo(1);
        assertThat(warnings.warnings()).isEmpty();
    }

    @Test
    void theFileNameFollows() throws IOException {
        assertThat(patched(Fixture.plan(), "small.onnx").get("filename").asText())
                .isEqualTo("small.onnx");
    }

    @Test
    void aFileWithoutDecoderIsWarnedOf() throws IOException {
        ObjectNode config = Fixture.config(folder, "{\"model\": {}}").root();
        GenaiConfig.patch(config, Sizes.of(Fixture.structure(MODEL), Fixture.plan()), "model.onnx", warnings);

        assertThat(config).hasToString("{\"model\":{}}");
        assertThat(warnings.warnings()).hasSize(1);
    }
}
