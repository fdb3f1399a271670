// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.emit;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.RecordedLog;
import io.onnxprune.diag.UsageException;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Role;
import io.onnxprune.dims.Structure;
import io.onnxprune.plan.Plan;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What clients can express, and who is named when one cannot load a result. */
@Tag("ort")
class ClientRulesTest {
    private static final String GROUPED = "llama-gqa-d";
    private static final String SHARED = "falcon-mqa-d";

    @TempDir
    private Path root;

    private final RecordedLog log = new RecordedLog();

    private Map<String, String> refused(String model, String clients) {
        return Clients.parse(clients)
                .refused(
                        Fixture.structure(model),
                        EnumSet.allOf(Role.class),
                        ModelFolder.of(Fixture.folder(model)),
                        log);
    }

    private static String[] everywhere(String model, Role role, int kept) {
        return Fixture.structure(model).dimensions().stream()
                .filter(dimension -> dimension.role() == role)
                .map(dimension -> dimension.name() + '=' + kept)
                .toArray(String[]::new);
    }

    private void emit(String model, Plan plan, String clients) {
        ModelFolder input = ModelFolder.of(Fixture.folder(model));
        Structure structure = Fixture.structure(model);
        OutputTarget target = clients.isEmpty()
                ? OutputTarget.of(input, root.resolve("out"))
                : OutputTarget.of(input, root.resolve("out"), Clients.parse(clients));
        Fixture.emit(new Emitter.Request(Fixture.prune(structure, plan), structure, plan, input, target, false), log);
    }

    @Test
    void namesAreRead() {
        assertThat(Clients.parse("optimum, transformers.js").all())
                .containsExactly(Client.OPTIMUM, Client.TRANSFORMERS_JS);
        assertThat(Clients.parse("ort,ort")).hasToString("ort");
        for (String wrong : List.of("", "optimun", "ort,", "ORT")) {
            assertThatThrownBy(() -> Clients.parse(wrong))
                    .isInstanceOf(UsageException.class)
                    .hasMessageContaining("ort, genai, optimum, transformers, transformers.js");
        }
    }

    /** Where only a key of its own gives the cached heads, these may change; the width is divided by the others. */
    @Test
    void optimumNeedsWhatItDividesBy() {
        Set<String> grouped = refused(GROUPED, "optimum").keySet();
        assertThat(grouped).contains("hidden").noneMatch(name -> name.startsWith("kv_heads") || name.startsWith("ffn"));
        assertThat(refused(SHARED, "optimum").keySet())
                .contains("hidden")
                .noneMatch(name -> name.startsWith("heads") || name.startsWith("ffn"));
        assertThat(refused("gpt-neox-d", "optimum")).containsKeys("hidden", "heads.0", "heads.1");
        assertThat(log.lines()).anyMatch(line -> line.startsWith("info: optimum needs all attention heads: "));
    }

    @Test
    void othersNeedLess() {
        assertThat(refused(GROUPED, "ort,transformers,transformers.js")).isEmpty();
        assertThat(refused("gpt-neox-d", "transformers")).containsOnlyKeys("hidden");
        assertThat(refused("llama-g16-e-fp32", "genai").keySet())
                .allMatch(name -> name.startsWith("qk_head_dim") || name.startsWith("v_head_dim"));
        assertThat(Clients.parse("ort,genai,transformers").needsEqualLayers()).isEmpty();
        assertThat(Clients.parse("ort,optimum").needsEqualLayers()).contains(Client.OPTIMUM);
        assertThat(Clients.parse("transformers.js").needsEqualLayers()).contains(Client.TRANSFORMERS_JS);
    }

    @Test
    void equalGroupsAreLoadedByAll() {
        emit(GROUPED, Fixture.plan("kv_heads.0=3", "kv_heads.1=3", "kv_heads.2=3"), "");
        assertThat(log.warnings()).isEmpty();
    }

    @Test
    void theClientThatCannotLoadIsNamed() {
        emit(GROUPED, Fixture.plan("kv_heads.0=3", "kv_heads.1=2", "kv_heads.2=2"), "");
        assertThat(log.warnings())
                .singleElement()
                .asString()
                .startsWith("optimum cannot load the folder: it gives every layer a cache of 3 heads of size 8")
                .contains("takes one of 2 heads of size 8")
                .endsWith("--for optimum prunes only what it can express");
    }

    /** The same files are found by one key in some families and by another in others. */
    @Test
    void whatDependsOnTheFamilyIsSaid() {
        emit("stories-llama", Fixture.plan(everywhere("stories-llama", Role.HEADS, 6)), "");
        assertThat(log.warnings())
                .singleElement()
                .asString()
                .startsWith("optimum cannot load the folder in some model families: ");
    }

    @Test
    void aWidthThatTheHeadSizeFollowsFromIsNamed() {
        emit("gpt-neox-d", Fixture.plan("hidden=48"), "");
        assertThat(log.warnings()).hasSize(2);
        assertThat(log.warnings().get(0)).startsWith("optimum cannot load the folder: ");
        assertThat(log.warnings().get(1)).startsWith("transformers cannot load the folder in some model families: ");
    }

    @Test
    void aResultThatTheClientCannotLoadIsNotWritten() {
        Plan uneven = Fixture.plan("kv_heads.0=3", "kv_heads.1=2", "kv_heads.2=2");
        assertThatThrownBy(() -> emit(GROUPED, uneven, "optimum"))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("--for optimum cannot be kept")
                .hasMessageContaining("nothing was written");
        assertThat(root.resolve("out")).doesNotExist();
        emit(GROUPED, uneven, "transformers");
        assertThat(log.warnings()).isEmpty();
    }

    @Test
    void transformersJsFindsTheFile() throws IOException {
        String json =
                "{\"transformers.js_config\": {\"dtype\": \"q4f16\", \"device_config\": {\"webgpu\": {\"dtype\": \"q4\"}},"
                        + " \"use_external_data_format\": {\"model_q4.onnx\": 2}}}";
        JsonFile there = Fixture.config(root, json);
        TransformersJsConfig.patch(there.root(), "model.onnx", false, false);
        assertThat(there.root())
                .hasToString(
                        "{\"transformers.js_config\":{\"dtype\":\"fp32\",\"device_config\":{\"webgpu\":{\"dtype\":\"fp32\"}}}}");

        JsonFile none = Fixture.config(root, "{}");
        TransformersJsConfig.patch(none.root(), "model.onnx", false, false);
        assertThat(none.root()).hasToString("{}");
        TransformersJsConfig.patch(none.root(), "model_q4f16.onnx", true, true);
        assertThat(none.root())
                .hasToString(
                        "{\"transformers.js_config\":{\"dtype\":\"q4f16\",\"use_external_data_format\":{\"model_q4f16.onnx\":1}}}");
        assertThat(TransformersJsConfig.fileName("decoder_model_merged.onnx")).isEqualTo("model.onnx");
        assertThat(TransformersJsConfig.fileName("model_uint8.onnx")).isEqualTo("model_uint8.onnx");
    }

    @Test
    void aHubsFolderIsWrittenAsOne() throws IOException {
        Path hub = Files.createDirectories(root.resolve("hub/onnx")).getParent();
        for (String name : List.of("config.json", "generation_config.json")) {
            Files.copy(Fixture.folder(GROUPED).resolve(name), hub.resolve(name));
        }
        Files.copy(Fixture.folder(GROUPED).resolve("model.onnx"), hub.resolve("onnx/model.onnx"));
        Files.writeString(hub.resolve("onnx/model_q4.onnx"), "x");
        Structure structure = Fixture.structure(GROUPED);
        Plan plan = Fixture.plan("ffn.0=80", "ffn.1=80", "ffn.2=80");
        ModelFolder input = ModelFolder.of(hub);
        OutputTarget target = OutputTarget.of(input, root.resolve("out"));
        Emitter.Emission written = Fixture.emit(
                new Emitter.Request(Fixture.prune(structure, plan), structure, plan, input, target, true), log);

        assertThat(Fixture.names(root.resolve("out"))).containsExactly("config.json", "generation_config.json", "onnx");
        assertThat(Fixture.names(root.resolve("out/onnx"))).containsExactly("model.onnx", "model.onnx_data");
        assertThat(written.files()).hasSize(4).startsWith(root.resolve("out/onnx/model.onnx"));
        assertThat(Fixture.json(root.resolve("out/config.json")).at("/transformers.js_config/use_external_data_format"))
                .hasToString("{\"model.onnx\":1}");
        assertThat(log.lines()).anyMatch(line -> line.endsWith("were not pruned and are not copied: model_q4.onnx"));
        Fixture.open(root.resolve("out/onnx/model.onnx"));
    }
}
