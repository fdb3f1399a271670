// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Folders for named clients, folders as model hubs have them, and the model card. */
@Tag("ort")
class FolderOptionsTest {
    @TempDir
    private Path root;

    /** A test model as a hub has it. */
    private Path hub(String model) throws IOException {
        Path hub = root.resolve("hub");
        Files.createDirectories(hub.resolve("onnx"));
        Path source = Cli.testModel(model);
        Files.copy(source, hub.resolve("onnx/model.onnx"));
        Files.copy(source.resolveSibling("config.json"), hub.resolve("config.json"));
        return hub;
    }

    private Cli.Run prune(Path model, Object... options) {
        List<Object> all = new ArrayList<>(List.of(model, "--quiet"));
        all.addAll(Cli.withoutData(options));
        return Cli.run(all.toArray());
    }

    private static JsonNode config(Path out) throws IOException {
        return new ObjectMapper().readTree(out.resolve("config.json").toFile());
    }

    @Test
    void aClientRestrictsWhatIsPruned() throws IOException {
        Path model = Cli.testModel("gpt-neox-d");
        Path out = root.resolve("out");
        Cli.Run run = Cli.run(model, "-o", out, "--method", "magnitude", "--for", "optimum", "--ratio", "0.1")
                .succeeded();

        assertThat(config(out).path("num_attention_heads").asInt()).isEqualTo(4);
        assertThat(config(out).path("intermediate_size").asInt()).isLessThan(96);
        assertThat(run.err())
                .contains("all layers keep equal counts for optimum")
                .contains("optimum needs all attention heads: ")
                .doesNotContain("warning");
        prune(model, "-o", root.resolve("other"), "--for", "optimum", "--ratio", "0.9")
                .failed(1, "cannot be reached", "heads.0 is not pruned for optimum (it divides the width");
    }

    @Test
    void clientsThatCannotBeServedAreRefused() {
        Path model = Cli.testModel("gpt-neox-d");
        Path out = root.resolve("out");
        prune(model, "-o", root.resolve("small.onnx"), "--for", "ort").failed(2, "give -o a folder");
        prune(model, "-o", out, "--for", "genai").failed(2, "needs the file genai_config.json");
        prune(Cli.testModel("gpt2-cb"), "-o", out, "--for", "optimum").failed(2, "needs the file config.json");
        prune(model, "-o", out, "--for", "optimum", "--layout", "per-layer")
                .failed(2, "--layout per-layer cannot be served by optimum");
        prune(model, "-o", out, "--for", "torch").failed(2, "there is no client \"torch\"");
        assertThat(out).doesNotExist();
    }

    @Test
    void withoutAClientTheOneThatFailsIsNamed() {
        Cli.Run run = prune(
                        Cli.testModel("gpt-neox-d"), "-o", root.resolve("out"), "--prune", "heads", "--ratio", "0.1")
                .succeeded();

        assertThat(run.err().lines())
                .singleElement()
                .asString()
                .startsWith("warning: optimum cannot load the folder: ")
                .contains("--for optimum");
    }

    @Test
    void layersMayDifferBesideAGenaiConfig() {
        Path model = Path.of("testmodels", "llama-g16-e-fp32");
        Cli.Run run = Cli.run(
                        model,
                        "-o",
                        root.resolve("out"),
                        "--method",
                        "magnitude",
                        "--for",
                        "genai",
                        "--ratio",
                        "0.1",
                        "--protect",
                        "layers.0")
                .succeeded();

        assertThat(run.err()).contains("has the number of the first layer").doesNotContain("warning");
    }

    @Test
    void aHubsFolderIsReadAndWritten() throws IOException {
        Path hub = hub("llama-gqa-d");
        Files.copy(hub.resolve("onnx/model.onnx"), hub.resolve("onnx/model_fp16.onnx"));
        Path out = root.resolve("out");
        Cli.Run run = Cli.run(hub, "-o", out, "--method", "magnitude", "--prune", "ffn", "--ratio", "0.05")
                .succeeded();

        assertThat(run.err()).contains("not copied: model_fp16.onnx");
        assertThat(out.resolve("onnx/model.onnx")).isRegularFile();
        assertThat(config(out).path("intermediate_size").asInt()).isLessThan(96);
        assertThat(out.resolve("README.md")).content().contains("library_name: transformers.js");

        Path tokens = Cli.tokens(root);
        Cli.run("inspect", out).succeeded();
        Cli.run("eval", out, "--data", tokens).succeeded();
        prune(out.resolve("onnx/model.onnx"), "-o", root.resolve("again"), "--prune", "ffn", "--ratio", "0.05")
                .succeeded();
        assertThat(root.resolve("again/config.json")).isRegularFile();
        prune(hub, "-o", hub.resolve("onnx")).failed(2, "is the folder of the input");
        prune(hub, "-o", root.resolve("small.onnx"), "--prune", "ffn").succeeded();
        assertThat(root.resolve("small.onnx")).isRegularFile();
    }

    @Test
    void aModelCardTellsWhatWasDone() throws IOException {
        Path hub = hub("gpt-neox-d");
        Files.writeString(hub.resolve("README.md"), """
                ---
                license: other
                license_name: some-licence
                base_model: [someone/first]
                tags: [mine]
                pipeline_tag: text-generation
                ---
                # The original
                Words about the original.
                """);
        Path out = root.resolve("out's");
        prune(hub, "-o", out, "--for", "optimum,transformers", "--ratio", "0.05", "--data-seed", 1)
                .failed(2, "--data-seed");
        prune(hub, "-o", out, "--for", "optimum,transformers", "--ratio", "0.05")
                .succeeded();

        String card = Files.readString(out.resolve("README.md"));
        assertThat(card)
                .startsWith("---\nbase_model:\n- someone/first\nlicense: other\nlicense_name: some-licence\n")
                .contains("library_name: transformers\npipeline_tag: text-generation\ntags:\n- onnx\n- transformers\n")
                .contains("# out's\n", "| parameters | 99,776 | 94,", "| layers | 2 | 2 |", "verified on ")
                .contains("--for optimum,transformers --ratio 0.05\n```")
                .contains("/out'\\''s'")
                .doesNotContain("Words about the original", "mine");

        Path named = root.resolve("named");
        prune(hub, "-o", named, "--ratio", "0.05", "--base-model", "me/mine").succeeded();
        assertThat(named.resolve("README.md")).content().contains("base_model: me/mine\n");
    }

    @Test
    void theNameOfTheOriginalIsNoFolder() throws IOException {
        Path hub = hub("gpt-neox-d");
        String config = Files.readString(hub.resolve("config.json"));
        for (String name : List.of("/home/me/model", "owner/name")) {
            Files.writeString(
                    hub.resolve("config.json"), config.replaceFirst("\\{", "{\"_name_or_path\": \"" + name + "\","));
            Path out = root.resolve("out" + name.length());
            prune(hub, "-o", out, "--ratio", "0.05").succeeded();
            assertThat(Files.readString(out.resolve("README.md")).contains("base_model: owner/name\n"))
                    .isEqualTo(name.equals("owner/name"));
        }
    }

    @Test
    void aCardThatIsNoYamlIsWarnedOf() throws IOException {
        Path hub = hub("gpt-neox-d");
        Files.writeString(hub.resolve("README.md"), "---\nlicense: [\n---\n");
        Cli.Run run = prune(hub, "-o", root.resolve("out"), "--prune", "ffn", "--ratio", "0.05")
                .succeeded();
        assertThat(run.err()).startsWith("warning: ").contains("README.md is not read");

        Files.writeString(hub.resolve("README.md"), "---\nlicense: " + "[".repeat(5000) + "]".repeat(5000) + "\n---\n");
        assertThat(prune(hub, "-o", root.resolve("deep"), "--prune", "ffn", "--ratio", "0.05")
                        .succeeded()
                        .err())
                .contains("README.md is not read");
    }

    @Test
    void noCardIsWrittenBesideALoneFile() throws IOException {
        prune(hub("gpt-neox-d"), "-o", root.resolve("alone/small.onnx"), "--ratio", "0.05")
                .succeeded();
        assertThat(root.resolve("alone")).isDirectoryContaining("glob:**small.onnx");
        assertThat(root.resolve("alone/README.md")).doesNotExist();
    }
}
