// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * Folders are loaded, and generate, in onnxruntime-node and in transformers.js. Both come from npm, once, into {@code
 * target/clients}; without Node.js or the registry, the tests are skipped.
 */
@Tag("ort")
@Tag("slow")
class NodeClientsTest {
    private static final Path SCRIPT = Path.of("scripts", "clients", "try_node.mjs");
    /** Versions that differ would be other clients. */
    private static final List<String> PACKAGES = List.of("@huggingface/transformers@4.3.2", "onnxruntime-node@1.30.0");

    private static final String TOKENIZER = """
            {"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "Whitespace"},
             "post_processor": null, "decoder": null, "model": {"type": "WordLevel", "unk_token": "<unk>",
             "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "Once": 3, "upon": 4, "a": 5, "time": 6}}}
            """;

    private static Path modules;

    @TempDir
    private Path root;

    @BeforeAll
    static void install() throws IOException, InterruptedException {
        modules = Path.of(System.getProperty("clients.modules", "target/clients"));
        boolean complete = Files.isDirectory(modules.resolve("node_modules/@huggingface/transformers"))
                && Files.isDirectory(modules.resolve("node_modules/onnxruntime-node"));
        if (!complete) {
            assumeTrue(run(Path.of("."), "node", "--version").code == 0, "there is no Node.js here");
            Files.createDirectories(modules);
            Files.writeString(modules.resolve("package.json"), "{\"private\": true}");
            List<String> command = new ArrayList<>(
                    List.of("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--save-exact"));
            command.addAll(PACKAGES);
            Ended ended = run(modules, command.toArray(String[]::new));
            assumeTrue(ended.code == 0, "npm cannot install the clients: " + ended.text);
        }
    }

    private record Ended(int code, String text) {}

    private static Ended run(Path folder, String... command) throws InterruptedException {
        try {
            Path said = Files.createTempFile("client", ".txt");
            Process process = new ProcessBuilder(command)
                    .directory(folder.toFile())
                    .redirectOutput(said.toFile())
                    .redirectError(ProcessBuilder.Redirect.DISCARD)
                    .start();
            if (!process.waitFor(5, TimeUnit.MINUTES)) {
                process.destroyForcibly();
                return new Ended(-1, "it takes too long");
            }
            String text = Files.readString(said);
            Files.delete(said);
            return new Ended(process.exitValue(), text);
        } catch (IOException e) {
            return new Ended(-1, e.toString());
        }
    }

    /** What a client makes of folders, by name. */
    private static Map<String, String> tried(String client, List<Path> folders) throws InterruptedException {
        List<String> command = new ArrayList<>(List.of(
                "node",
                SCRIPT.toAbsolutePath().toString(),
                modules.toAbsolutePath().toString(),
                client));
        folders.forEach(folder -> command.add(folder.toString()));
        Map<String, String> results = new TreeMap<>();
        run(Path.of("."), command.toArray(String[]::new))
                .text
                .lines()
                .map(line -> line.split("\t", 2))
                .forEach(parts -> results.put(parts[0], parts.length > 1 ? parts[1] : ""));
        return results;
    }

    /** A test model with a tokenizer, in the layout of hubs or flat. */
    private Path dense(String model, boolean hub) throws IOException {
        Path folder = root.resolve("dense-" + model);
        Path place = Files.createDirectories(hub ? folder.resolve("onnx") : folder);
        Path source = Cli.testModel(model);
        Files.copy(source, place.resolve("model.onnx"));
        Files.copy(source.resolveSibling("config.json"), folder.resolve("config.json"));
        Files.writeString(folder.resolve("tokenizer.json"), TOKENIZER);
        Files.writeString(
                folder.resolve("tokenizer_config.json"),
                "{\"tokenizer_class\": \"PreTrainedTokenizerFast\", \"unk_token\": \"<unk>\"}");
        return folder;
    }

    /** A test model with a tokenizer that gives tokens for any text. */
    private Path described() throws IOException {
        Path folder = dense("stories-llama", true);
        Path tokenizer = Path.of("src/test/resources/tokenizers/byte-fallback/tokenizer.json");
        Files.copy(tokenizer, folder.resolve("tokenizer.json"), StandardCopyOption.REPLACE_EXISTING);
        return folder;
    }

    private Path pruned(String name, Path model, Object... options) {
        Path out = root.resolve(name);
        List<Object> all = new ArrayList<>(List.of(model, "-o", out, "--quiet", "--method", "magnitude"));
        all.addAll(Arrays.asList(options));
        Cli.run(all.toArray()).succeeded();
        return out;
    }

    @Test
    void foldersLoadAndGenerate() throws IOException, InterruptedException {
        Path grouped = dense("llama-gqa-d", false);
        Path plain = dense("gpt-neox-d", true);
        List<Path> folders = List.of(
                pruned("for-js", grouped, "--for", "transformers.js"),
                pruned("for-all", grouped, "--for", "optimum,transformers,transformers.js", "--ratio", "0.1"),
                pruned("uneven", grouped, "--protect", "layers.1"),
                pruned("fewer-layers", grouped, "--prune", "layers", "--ratio", "0.3"),
                pruned("fewer-tokens", described(), "--prune", "vocabulary", "--calibration", "docs/recovery.md"),
                pruned("hub", plain),
                pruned("hub-external", plain, "--external-data"),
                pruned("hub-hidden", plain, "--prune", "heads,ffn,hidden"));
        Map<String, String> expected = new TreeMap<>();
        folders.forEach(folder -> expected.put(folder.getFileName().toString(), "ok"));

        assertThat(tried("node", folders)).isEqualTo(expected);
        assertThat(tried("transformers.js", folders)).isEqualTo(expected);
    }

    /** The script finds fault where there is one. */
    @Test
    void aFolderThatDoesNotFitIsFound() throws IOException, InterruptedException {
        Path folder = dense("gpt-neox-d", true);
        Files.delete(folder.resolve("onnx/model.onnx"));
        Files.writeString(folder.resolve("onnx/model.onnx"), "no model");

        assertThat(tried("node", List.of(folder)).values()).doesNotContain("ok").hasSize(1);
        assertThat(tried("transformers.js", List.of(folder)).values())
                .doesNotContain("ok")
                .hasSize(1);
    }
}
