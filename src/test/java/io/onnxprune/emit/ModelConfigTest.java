// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.emit;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.node.ObjectNode;
import io.onnxprune.RecordedLog;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Role;
import io.onnxprune.plan.Plan;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

@Tag("ort")
class ModelConfigTest {
    private static final String GROUPED = "llama-gqa-d";
    private static final String PLAIN = "gpt2-g-merged";

    @TempDir
    private Path folder;

    private final RecordedLog warnings = new RecordedLog();

    private ObjectNode patched(String model, Plan plan) throws IOException {
        return patched(model, plan, Files.readString(Fixture.folder(model).resolve("config.json")));
    }

    private ObjectNode patched(String model, Plan plan, String json) throws IOException {
        return patched(model, plan, json, false);
    }

    private ObjectNode patched(String model, Plan plan, String json, boolean keepsHeads) throws IOException {
        ObjectNode config = Fixture.config(folder, json).root();
        ModelConfig.patch(config, Sizes.of(Fixture.structure(model), plan), keepsHeads, warnings);
        return config;
    }

    @Test
    void equalLayersNeedOneNumber() throws IOException {
        ObjectNode config = patched(
                GROUPED,
                Fixture.plan("kv_heads.0=2", "kv_heads.1=2", "kv_heads.2=2", "ffn.0=72", "ffn.1=72", "ffn.2=72"));

        assertThat(config.get("num_attention_heads").asInt()).isEqualTo(4);
        assertThat(config.get("num_key_value_heads").asInt()).isEqualTo(2);
        assertThat(config.get("intermediate_size").asInt()).isEqualTo(72);
        assertThat(config.get("hidden_size").asInt()).isEqualTo(64);
        assertThat(config.get("num_hidden_layers").asInt()).isEqualTo(3);
        assertThat(config.has("per_layer_config")).isFalse();
        assertThat(warnings.warnings()).isEmpty();
    }

    @Test
    void queryHeadsInsideGroupsCountAsAttentionHeads() throws IOException {
        ObjectNode config = patched(GROUPED, Fixture.plan("query_heads.0=1", "query_heads.1=1", "query_heads.2=1"));

        assertThat(config.get("num_attention_heads").asInt()).isEqualTo(4);
        assertThat(config.get("num_key_value_heads").asInt()).isEqualTo(4);
        assertThat(warnings.warnings()).isEmpty();
    }

    @Test
    void layersThatDifferAreListed() throws IOException {
        ObjectNode config = patched(GROUPED, Fixture.plan("kv_heads.1=2", "ffn.0=90", "ffn.1=80", "ffn.2=70"));

        assertThat(config.get("num_attention_heads").asInt()).isEqualTo(8);
        assertThat(config.get("intermediate_size").asInt()).isEqualTo(90);
        assertThat(config.get("per_layer_config"))
                .hasToString("{\"1\":{\"intermediate_size\":80,\"num_attention_heads\":4,\"num_key_value_heads\":2},"
                        + "\"2\":{\"intermediate_size\":70}}");
        assertThat(config.get("allow_global_per_layer_attribute_access").asBoolean())
                .isTrue();
        assertThat(warnings.warnings()).isEmpty();
    }

    /** Loaders divide the width by the number of heads, and some refuse what does not divide. */
    @Test
    void aNumberOfHeadsThatDoesNotDivideTheWidthStandsWithTheLayers() throws IOException {
        Plan plan = Fixture.plan("kv_heads.0=3", "kv_heads.1=3", "kv_heads.2=2");
        ObjectNode config = patched(GROUPED, plan);

        assertThat(config.get("num_attention_heads").asInt()).isEqualTo(8);
        assertThat(config.get("num_key_value_heads").asInt()).isEqualTo(3);
        assertThat(config.get("per_layer_config"))
                .hasToString("{\"0\":{\"num_attention_heads\":6},\"1\":{\"num_attention_heads\":6},"
                        + "\"2\":{\"num_attention_heads\":4,\"num_key_value_heads\":2}}");

        String wide = "{\"hidden_size\": 64, \"num_attention_heads\": 8, \"head_dim\": 8, \"num_key_value_heads\": 4}";
        ObjectNode narrow = patched(GROUPED, Fixture.plan("hidden=50"), wide);
        assertThat(narrow.get("num_attention_heads").asInt()).isEqualTo(5);
        assertThat(narrow.at("/per_layer_config/0/num_attention_heads").asInt()).isEqualTo(8);
    }

    /** A second pruning finds the number of a layer with the layer. */
    @Test
    void headsOfLayersArePrunedAgain() throws IOException {
        String json = "{\"hidden_size\": 64, \"num_attention_heads\": 16, \"head_dim\": 8, \"num_key_value_heads\": 4,"
                + " \"allow_global_per_layer_attribute_access\": true, \"per_layer_config\":"
                + " {\"0\": {\"num_attention_heads\": 8}, \"1\": {\"num_attention_heads\": 8},"
                + " \"2\": {\"num_attention_heads\": 8}}}";
        ObjectNode config = patched(GROUPED, Fixture.plan("kv_heads.0=2", "kv_heads.1=2", "kv_heads.2=2"), json);

        assertThat(config)
                .hasToString("{\"hidden_size\":64,\"num_attention_heads\":4,\"head_dim\":8,\"num_key_value_heads\":2}");
    }

    @Test
    void aClientThatDividesByTheNumberOfHeadsKeepsIt() throws IOException {
        String json = "{\"hidden_size\": 64, \"num_attention_heads\": 8, \"head_dim\": 8, \"num_key_value_heads\": 4}";
        Plan plan = Fixture.plan("kv_heads.0=2", "kv_heads.1=2", "kv_heads.2=2");
        ObjectNode config = patched(GROUPED, plan, json, true);

        assertThat(config.get("num_attention_heads").asInt()).isEqualTo(8);
        assertThat(config.get("num_key_value_heads").asInt()).isEqualTo(2);
        assertThat(config.at("/per_layer_config/2/num_attention_heads").asInt()).isEqualTo(4);
    }

    @Test
    void listedSizesArePrunedAgainAndMoveWithTheirLayer() throws IOException {
        String json = """
                {"intermediate_size": 100, "num_hidden_layers": 3, "hidden_size": 64,
                 "per_layer_config": {"0": {"other": 1}, "1": {"other": 2, "intermediate_size": 96},
                                      "2": {"intermediate_size": 96}}}""";
        ObjectNode config =
                patched(GROUPED, new Plan("", Fixture.plan("ffn.1=72").keep(), new int[] {1, 2}, null), json);

        assertThat(config)
                .hasToString("{\"intermediate_size\":96,\"num_hidden_layers\":2,\"hidden_size\":64,"
                        + "\"per_layer_config\":{\"0\":{\"other\":2,\"intermediate_size\":72}},"
                        + "\"allow_global_per_layer_attribute_access\":true}");
    }

    @Test
    void unrelatedNumbersAreNotChanged() throws IOException {
        ObjectNode config = patched(
                GROUPED,
                Fixture.plan("ffn.0=72", "ffn.1=72", "ffn.2=72", "hidden=48"),
                "{\"intermediate_size\": 1000, \"ffn_dim\": 96, \"hidden_size\": 96, \"n_head\": 96, \"n_layer\": 3}");

        assertThat(config)
                .hasToString(
                        "{\"intermediate_size\":1000,\"ffn_dim\":72,\"hidden_size\":96,\"n_head\":96,\"n_layer\":3}");
        assertThat(warnings.warnings())
                .singleElement()
                .asString()
                .contains("no key that states")
                .contains("hidden channels");
    }

    @Test
    void anImpliedHeadSizeIsWritten() throws IOException {
        ObjectNode config = patched("phi3-d", Fixture.plan("hidden=48"));
        assertThat(config.get("hidden_size").asInt()).isEqualTo(48);
        assertThat(config.has("head_dim")).isFalse();
        assertThat(config.get("per_layer_config")).hasToString("{\"0\":{\"head_dim\":8},\"1\":{\"head_dim\":8}}");
        assertThat(patched("phi3-d", Fixture.plan("hidden=47")).get("head_dim").asInt())
                .isEqualTo(8);

        ObjectNode explicit = patched("glm-d", Fixture.plan("kv_heads.0=2", "kv_heads.1=2", "ffn.0=64", "ffn.1=64"));
        assertThat(explicit.get("head_dim").asInt()).isEqualTo(8);
        assertThat(explicit.get("num_attention_heads").asInt()).isEqualTo(4);

        ObjectNode unset = patched(
                GROUPED,
                Fixture.plan("kv_heads.0=3", "kv_heads.1=3", "kv_heads.2=3"),
                "{\"head_dim\": null, \"hidden_size\": 64, \"num_attention_heads\": 8, \"num_key_value_heads\": 4}");
        String own = "{\"num_attention_heads\":6,\"head_dim\":8}";
        assertThat(unset)
                .hasToString(
                        "{\"head_dim\":null,\"hidden_size\":64,\"num_attention_heads\":8,\"num_key_value_heads\":3,"
                                + "\"per_layer_config\":{\"0\":" + own + ",\"1\":" + own + ",\"2\":" + own + "},"
                                + "\"allow_global_per_layer_attribute_access\":true}");

        ObjectNode unchanged = patched("phi3-d", Fixture.plan("ffn.0=64", "ffn.1=64"));
        assertThat(unchanged.has("head_dim")).isFalse();
        assertThat(warnings.warnings()).isEmpty();
    }

    @Test
    void impliedFfnWidthIsWrittenWhenItNoLongerFollows() throws IOException {
        String json = "{\"n_embd\": 24, \"n_inner\": null, \"n_head\": 4, \"n_layer\": 2}";
        ObjectNode config = patched(PLAIN, Fixture.plan("ffn.0=72", "ffn.1=72"), json);
        assertThat(config.get("n_inner").asInt()).isEqualTo(72);

        assertThat(patched(PLAIN, Fixture.plan("heads.0=3", "heads.1=3"), json))
                .hasToString("{\"n_embd\":24,\"n_inner\":null,\"n_head\":4,\"n_layer\":2,"
                        + "\"per_layer_config\":{\"0\":{\"n_head\":3,\"head_dim\":6},\"1\":{\"n_head\":3,\"head_dim\":6}},"
                        + "\"allow_global_per_layer_attribute_access\":true}");

        String bloom = "{\"hidden_size\": 64, \"n_head\": 4, \"n_layer\": 2, \"n_inner\": null}";
        assertThat(patched("bloom-d", Fixture.plan("hidden=48"), bloom)
                        .get("n_inner")
                        .asInt())
                .isEqualTo(256);
        assertThat(warnings.warnings()).isEmpty();
    }

    @Test
    void keysOfPlainHeads() throws IOException {
        ObjectNode config = patched(
                PLAIN,
                Fixture.plan("heads.0=3", "heads.1=3", "ffn.0=72", "ffn.1=72", "hidden=32"),
                "{\"n_embd\": 64, \"n_inner\": 96, \"n_head\": 4, \"num_key_value_heads\": 4}");

        assertThat(config)
                .hasToString("{\"n_embd\":32,\"n_inner\":72,\"n_head\":4,\"num_key_value_heads\":3,"
                        + "\"per_layer_config\":{\"0\":{\"n_head\":3,\"head_dim\":16},\"1\":{\"n_head\":3,\"head_dim\":16}},"
                        + "\"allow_global_per_layer_attribute_access\":true}");
    }

    @Test
    void droppedLayersLeaveCountsListsAndNumbers() throws IOException {
        String json =
                "{\"num_hidden_layers\": 3, \"layer_types\": [\"a\", \"b\", \"c\"], \"mlp_only_layers\": [0, 1, 2],"
                        + " \"max_window_layers\": 28, \"first_k_dense_replace\": 2, \"eos_token_id\": [1, 2, 3]}";

        assertThat(patched(GROUPED, Fixture.keepLayers(0, 2), json))
                .hasToString("{\"num_hidden_layers\":2,\"layer_types\":[\"a\",\"c\"],\"mlp_only_layers\":[0,1],"
                        + "\"max_window_layers\":27,\"first_k_dense_replace\":1,\"eos_token_id\":[1,2,3]}");
        assertThat(warnings.warnings()).isEmpty();
    }

    @Test
    void sizesOfDroppedLayersDoNotCount() throws IOException {
        Plan plan = new Plan("", Fixture.plan("ffn.0=72", "ffn.2=72").keep(), new int[] {0, 2}, null);
        ObjectNode config = patched(GROUPED, plan);

        assertThat(config.get("intermediate_size").asInt()).isEqualTo(72);
        assertThat(config.get("num_hidden_layers").asInt()).isEqualTo(2);
        assertThat(warnings.warnings()).isEmpty();
    }

    /** What a file says about single layers belongs to its own count of layers. */
    @Test
    void nothingAboutSingleLayersIsWrittenWhereTheFileCountsOthers() throws IOException {
        String json = "{\"num_hidden_layers\": 6, \"intermediate_size\": 96, \"max_window_layers\": 6,"
                + " \"per_layer_config\": {\"5\": {\"intermediate_size\": 90}}}";
        Plan plan = new Plan("", Fixture.plan("ffn.0=72", "ffn.2=80").keep(), new int[] {0, 2}, null);
        ObjectNode config = patched(GROUPED, plan, json);

        assertThat(config.get("num_hidden_layers").asInt()).isEqualTo(6);
        assertThat(config.get("max_window_layers").asInt()).isEqualTo(6);
        assertThat(config.get("intermediate_size").asInt()).isEqualTo(80);
        assertThat(config.get("per_layer_config")).hasToString("{\"5\":{\"intermediate_size\":90}}");
        assertThat(warnings.warnings())
                .singleElement()
                .asString()
                .startsWith("config.json states 6 layers, but the model has 3, so nothing is changed there");
    }

    @Test
    void changedWidthsWithoutAKeyAreNamed() throws IOException {
        patched("hybrid-conv", Fixture.plan("mixer.0=20", "mixer.2=20"), "{\"num_hidden_layers\": 4}");

        assertThat(warnings.warnings())
                .singleElement()
                .asString()
                .startsWith("config.json has no key that states the old number of mixer channels and was not changed");
    }

    /** The other keys of a model with an encoder may count the layers of the encoder. */
    @Test
    void theLayersOfADecoderHaveTheirOwnKey() throws IOException {
        String json = "{\"decoder_layers\": 3, \"num_hidden_layers\": 12, \"decoder_ffn_dim\": 96}";
        ObjectNode config = patched(GROUPED, new Plan("", Map.of(), new int[] {1}, null), json);

        assertThat(config.get("decoder_layers").asInt()).isEqualTo(1);
        assertThat(config.get("num_hidden_layers").asInt()).isEqualTo(12);
        assertThat(warnings.warnings()).isEmpty();
    }

    @Test
    void lostBlocksAndUnstatedSizesAreWarnedOf() throws IOException {
        ObjectNode config = patched(GROUPED, Fixture.keepBlocks(0, 1, 3, 4, 5));
        assertThat(config.get("num_hidden_layers").asInt()).isEqualTo(3);
        assertThat(warnings.warnings()).singleElement().asString().contains("lost their attention");

        warnings.warnings().clear();
        patched("bloom-d", Fixture.plan("ffn.0=128", "ffn.1=128"));
        assertThat(warnings.warnings()).singleElement().asString().contains("FFN channels");
    }

    @Test
    void expertsHaveTheirOwnKey() throws IOException {
        String model = "qwen3-moe-d";
        List<String> kept = new ArrayList<>();
        for (Dimension dimension : Fixture.structure(model).dimensions()) {
            if (dimension.role() == Role.FFN) {
                kept.add(dimension.name() + (dimension.layer() == 0 ? "=16" : kept.size() == 7 ? "=20" : "=24"));
            }
        }
        ObjectNode config = patched(model, Fixture.plan(kept.toArray(String[]::new)));

        assertThat(kept).hasSize(8);
        assertThat(config.get("intermediate_size").asInt()).isEqualTo(96);
        assertThat(config.get("moe_intermediate_size").asInt()).isEqualTo(24);
        assertThat(config.get("per_layer_config")).hasToString("{\"0\":{\"moe_intermediate_size\":16}}");
        assertThat(warnings.warnings()).isEmpty();
    }

    @Test
    void removedExpertsAreCountedWithoutTheirChannels() throws IOException {
        String model = "qwen3-moe-d";
        List<String> kept = new ArrayList<>(List.of("experts.0=2", "experts.1=2"));
        for (Dimension dimension : Fixture.structure(model).dimensions()) {
            if (dimension.role() == Role.FFN && !dimension.name().matches(".*-[34]")) {
                kept.add(dimension.name() + "=16");
            }
        }
        ObjectNode config = patched(model, Fixture.plan(kept.toArray(String[]::new)));

        assertThat(kept).hasSize(6);
        assertThat(config.get("num_experts").asInt()).isEqualTo(2);
        assertThat(config.get("num_experts_per_tok").asInt()).isEqualTo(2);
        assertThat(config.get("moe_intermediate_size").asInt()).isEqualTo(16);
        assertThat(warnings.warnings()).isEmpty();

        config = patched(model, Fixture.plan("experts.1=3"));
        assertThat(config.get("num_experts").asInt()).isEqualTo(4);
        assertThat(config.get("per_layer_config")).hasToString("{\"1\":{\"num_experts\":3}}");
        assertThat(warnings.warnings()).isEmpty();
        assertThat(warnings.lines().get(warnings.lines().size() - 1))
                .startsWith("info: ")
                .contains("experts");
    }

    @Test
    void sectionsOfTheDecoderArePatched() throws IOException {
        ObjectNode config = patched(
                GROUPED,
                Fixture.plan("ffn.0=72", "ffn.1=72", "ffn.2=72"),
                "{\"model_type\": \"x\", \"text_config\": {\"intermediate_size\": 96}}");

        assertThat(config.at("/text_config/intermediate_size").asInt()).isEqualTo(72);
        assertThat(warnings.warnings()).isEmpty();
    }

    @Test
    void formatIsKept() throws IOException {
        String json = """
                {
                    "b": 1e-05,
                    "a": 10000.0,
                    "list": [
                        1,
                        "x"
                    ],
                    "none": [],
                    "no": {},
                    "inf": Infinity,
                    "hidden_size": 64
                }
                """;
        JsonFile file = Fixture.config(folder, json);

        assertThat(new String(file.toBytes(), java.nio.charset.StandardCharsets.UTF_8))
                .isEqualTo(json.replace("1e-05", "0.00001"));
    }
}
