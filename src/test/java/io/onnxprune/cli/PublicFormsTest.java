// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.onnx.ModelReader;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.StreamSupport;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * Forms of exports from public reports, on the command line: what is counted, what is found, and that every role can be
 * pruned. They lie beside the project.
 */
@Tag("ort")
@Tag("slow")
class PublicFormsTest {
    private static final Path CASES = Path.of("..", "shared", "cases");

    @TempDir
    private Path folder;

    private static Path model(String name) {
        Path file = CASES.resolve(name + ".onnx");
        assumeTrue(Files.exists(file), () -> file + " is not there");
        return file;
    }

    private Cli.Run prune(String name, Object... options) {
        List<Object> all = new ArrayList<>(List.of(model(name)));
        all.addAll(List.of(options));
        all.addAll(List.of("--json", folder.resolve("report.json"), "-o", folder.resolve("small.onnx")));
        return Cli.run(all.toArray());
    }

    private JsonNode json(String file) throws IOException {
        return new ObjectMapper().readTree(folder.resolve(file).toFile());
    }

    @ParameterizedTest
    @CsvSource({
        "01-static-kv-cache/model, 86336, 2",
        "02-hybrid-shortconv/model, 131904, 3",
        "02-hybrid-shortconv/model_b, 144192, 3",
        "04-inputs-embeds/model, 80192, 2",
        "07-gptoss-moe/model, 112472, 2",
        "07-gptoss-moe/model_b, 160576, 2",
        "08-qdq-int4-block/model, 110912, 2",
        "08-qdq-int4-block/model_b, 110912, 2",
        "10-kv-shared-ple/model, 139128, 3",
        "11-split-to-sequence/model, 94528, 2",
        "12-lora-optional-inputs/model, 110912, 2",
        "13-mla/model, 107156, 2",
        "15-gated-attention-qwen35/model, 119168, 2",
        "21-static-shapes/model, 110912, 2",
        "25-constant-forms/model, 83392, 2",
        "25-constant-forms/model_b, 110912, 2",
        "26-int8-fused-ops/model, 110912, 2",
    })
    void parametersAndLayers(String name, long parameters, int layers) throws IOException {
        Cli.run("inspect", model(name), "--json", folder.resolve("inspect.json"))
                .succeeded();

        assertThat(json("inspect.json").path("parameters").asLong()).isEqualTo(parameters);
        assertThat(json("inspect.json").path("layers").asInt()).isEqualTo(layers);
    }

    @ParameterizedTest
    @CsvSource({
        "01-static-kv-cache/model, heads ffn layers, 0.04",
        "02-hybrid-shortconv/model, heads ffn layers, 0.04",
        "02-hybrid-shortconv/model_b, heads ffn layers, 0.04",
        "04-inputs-embeds/model, heads ffn layers, 0.04",
        "07-gptoss-moe/model, heads ffn experts layers, 0.04",
        "07-gptoss-moe/model_b, heads ffn experts layers, 0.04",
        "08-qdq-int4-block/model, heads ffn layers, 0.04",
        "08-qdq-int4-block/model_b, heads ffn layers, 0.04",
        "10-kv-shared-ple/model, heads ffn layers, 0.04",
        "11-split-to-sequence/model, heads ffn layers, 0.04",
        "12-lora-optional-inputs/model, heads ffn layers, 0.04",
        "13-mla/model, heads ffn layers, 0.04",
        "15-gated-attention-qwen35/model, heads ffn layers, 0.07",
        "21-static-shapes/model, heads ffn layers, 0.04",
        "25-constant-forms/model, heads ffn layers, 0.04",
        "25-constant-forms/model_b, heads ffn layers, 0.04",
        "26-int8-fused-ops/model, heads ffn layers, 0.04",
    })
    void everyRoleIsPrunedAndVerified(String name, String roles, double heads) throws IOException {
        for (String role : roles.split(" ")) {
            double ratio = role.equals("layers") ? 0.4 : role.equals("ffn") || role.equals("experts") ? 0.1 : heads;
            Cli.Run run = prune(name, "--method", "magnitude", "--prune", role, "--ratio", ratio)
                    .succeeded();
            assertThat(run.out()).as(role).contains("verified on");
            assertThat(json("report.json").path("ratio_achieved").asDouble())
                    .as(role)
                    .isPositive();
            Files.delete(folder.resolve("small.onnx"));
        }
    }

    /** What gradients can go through, the default method prunes. */
    @ParameterizedTest
    @CsvSource({
        "01-static-kv-cache/model",
        "02-hybrid-shortconv/model",
        "02-hybrid-shortconv/model_b",
        "10-kv-shared-ple/model",
        "11-split-to-sequence/model",
        "12-lora-optional-inputs/model",
        "13-mla/model",
        "15-gated-attention-qwen35/model",
        "21-static-shapes/model",
        "25-constant-forms/model",
        "25-constant-forms/model_b",
    })
    void theDefaultMethod(String name) throws IOException {
        Cli.Run run = prune(name, "--ratio", 0.2, "--samples", 4, "--work-dir", folder.resolve("work"))
                .succeeded();

        assertThat(run.out()).contains("verified on", "perplexity");
        assertThat(json("report.json").path("ratio_achieved").asDouble()).isCloseTo(0.2, within(0.02));
    }

    /** Symbolic axes of optional inputs stay, so adapters of the smaller widths can be given. */
    @Test
    void slotsOfAdaptersStay() {
        prune("12-lora-optional-inputs/model", "--method", "magnitude", "--ratio", 0.2)
                .succeeded();

        Model small = ModelReader.read(folder.resolve("small.onnx"));
        List<ValueInfo> slots = small.graph().inputs().stream()
                .filter(input -> small.graph().initializers().containsKey(input.name()))
                .toList();
        assertThat(slots)
                .isNotEmpty()
                .allSatisfy(slot -> assertThat(slot.shape())
                        .anySatisfy(extent -> assertThat(extent.symbol()).isEqualTo("lora_r")));
    }

    /** The length of a cache is not the network's. */
    @Test
    void theLengthOfACacheStays() {
        prune("01-static-kv-cache/model", "--method", "magnitude", "--prune", "heads", "--ratio", 0.05)
                .succeeded();

        Model small = ModelReader.read(folder.resolve("small.onnx"));
        assertThat(small.graph().inputs().stream()
                        .filter(input -> input.shape().size() == 4)
                        .map(input -> input.shape().get(2).size()))
                .containsOnly(48L);
    }

    /** The width of per-layer embeddings is not that of an FFN. */
    @Test
    void widthsBesideTheStreamAreNoChannels() throws IOException {
        Cli.run("inspect", model("10-kv-shared-ple/model"), "--json", folder.resolve("inspect.json"))
                .succeeded();

        assertThat(StreamSupport.stream(json("inspect.json").path("dimensions").spliterator(), false)
                        .filter(dimension -> dimension.path("role").asText().equals("ffn"))
                        .map(dimension -> dimension.path("size").asInt()))
                .hasSize(3)
                .doesNotContain(8);
    }

    @Test
    void aPlanOfLayersThatIsAcceptedCanBeCarriedOut() throws IOException {
        Object[] options = {"--method", "magnitude", "--prune", "layers", "--ratio", 0.3};
        Cli.Run planned = Cli.run(
                model("10-kv-shared-ple/model"),
                "--dry-run",
                "--json",
                folder.resolve("plan.json"),
                options[0],
                options[1],
                options[2],
                options[3],
                options[4],
                options[5]);
        planned.succeeded();
        prune("10-kv-shared-ple/model", options).succeeded();

        assertThat(json("report.json").path("parameters_after"))
                .isEqualTo(json("plan.json").path("parameters_after"));
    }
}
