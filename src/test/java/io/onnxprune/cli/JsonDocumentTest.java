// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** docs/json.md agrees with the written JSON, field by field. */
@Tag("ort")
class JsonDocumentTest {
    private static final Path DOCUMENT = Path.of("docs", "json.md");
    private static final Path MODEL = Cli.testModel("llama-gqa-d");
    private static final Pattern ROW = Pattern.compile("\\| `([^`]+)` \\| ([^|]+) \\|.*");

    @TempDir
    private Path folder;

    @Test
    void prune() throws IOException {
        Path file = folder.resolve("a.json");
        Path recipe = Files.writeString(folder.resolve("recipe.yaml"), """
                version: 2
                name: all
                passes:
                  - {pass: calibrate}
                  - {pass: rotate}
                  - {pass: score, metric: random}
                  - {pass: gates, epochs: 1}
                  - {pass: allocate, prune: [heads, v_head_dim, ffn], scope: global}
                  - {pass: search, generations: 1, candidates: 1, blocks: false}
                  - {pass: sparsify}
                  - {pass: rewrite}
                  - {pass: emit}
                  - {pass: verify}
                """);
        Cli.run(
                        MODEL,
                        "-o",
                        folder.resolve("a.onnx"),
                        "--recipe",
                        recipe,
                        "--memory-target",
                        "500KB",
                        "--context",
                        "64",
                        "--correct",
                        "1",
                        "--recover",
                        "--calibration",
                        Cli.tokens(folder),
                        "--json",
                        file)
                .succeeded();
        assertDocumented("prune", file, true);
        assertThat(read(file).at("/files/0").asText()).endsWith("a.onnx");

        Cli.run(MODEL, "--dry-run", "--method", "magnitude", "--prune", "layers", "--ratio", "0.4", "--json", file)
                .succeeded();
        assertDocumented("prune", file, false);
        assertThat(read(file).path("layers_after").asInt()).isEqualTo(1);
    }

    @Test
    void pruneAnEncoder() throws IOException {
        Path file = folder.resolve("a.json");
        Path encoder = ModelForms.write(ModelForms.encoder(ModelForms.PLAIN), folder.resolve("encoder/model.onnx"));
        Cli.run(
                        encoder,
                        "-o",
                        folder.resolve("a.onnx"),
                        "--method",
                        "magnitude",
                        "--calibration",
                        Cli.tokens(folder),
                        "--seq-len",
                        "6",
                        "--json",
                        file)
                .succeeded();

        assertDocumented("prune", file, false);
        assertThat(read(file).path("similarity").fieldNames())
                .toIterable()
                .map(name -> "similarity." + name)
                .containsExactlyInAnyOrderElementsOf(documented("prune").keySet().stream()
                        .filter(name -> name.startsWith("similarity."))
                        .toList());
    }

    @Test
    void pruneTheVocabulary() throws IOException {
        Path file = folder.resolve("a.json");
        Path input = folder.resolve("in");
        Cli.copy(Path.of("testmodels", "stories-llama"), input);
        Cli.copy(Path.of("src", "test", "resources", "tokenizers", "byte-fallback"), input);
        Path text = Files.copy(Path.of("docs", "concepts.md"), folder.resolve("text.txt"));
        Cli.run(
                        input,
                        "-o",
                        folder.resolve("out"),
                        "--method",
                        "magnitude",
                        "--prune",
                        "vocabulary",
                        "--calibration",
                        text,
                        "--seq-len",
                        "64",
                        "--json",
                        file)
                .succeeded();

        assertDocumented("prune", file, false);
        Map<String, TreeSet<String>> found = new TreeMap<>();
        collect("", read(file), found);
        assertThat(found.keySet())
                .containsAll(documented("prune").keySet().stream()
                        .filter(name -> name.startsWith("vocabulary."))
                        .toList());
    }

    @Test
    void inspect() throws IOException {
        Path file = folder.resolve("a.json");
        Cli.run("inspect", MODEL, "--json", file).succeeded();
        assertDocumented("inspect", file, true);
        Cli.run("inspect", MODEL, "--explain", "logits", "--json", file).succeeded();
        assertDocumented("inspect", file, true);
    }

    @Test
    void recover() throws IOException {
        Path file = folder.resolve("a.json");
        Cli.run(
                        "recover",
                        MODEL,
                        "-o",
                        folder.resolve("trained.onnx"),
                        "--data",
                        Cli.tokens(folder),
                        "--eval",
                        Cli.tokens(folder),
                        "--seq-len",
                        "8",
                        "--batch",
                        "4",
                        "--steps",
                        "2",
                        "--work-dir",
                        folder.resolve("work"),
                        "--json",
                        file)
                .succeeded();
        assertDocumented("recover", file, true);
        assertThat(folder.resolve("trained.onnx")).exists();
    }

    @Test
    void eval() throws IOException {
        Path file = folder.resolve("a.json");
        Cli.run(
                        "eval",
                        MODEL,
                        "--against",
                        MODEL.getParent(),
                        "--data",
                        Cli.tokens(folder),
                        "--prompt",
                        "8",
                        "--json",
                        file)
                .succeeded();
        assertDocumented("eval", file, true);
        Cli.run("eval", MODEL, "--data", Cli.tokens(folder), "--prompt", "0", "--json", file)
                .succeeded();
        assertDocumented("eval", file, false);
        Path questions = Files.writeString(
                folder.resolve("questions.jsonl"),
                "{\"input_ids\": [1, 2], \"choices\": [[3], [4, 5]], \"label\": 0}\n");
        Cli.run("eval", MODEL, "--against", MODEL.getParent(), "--choices", questions, "--json", file)
                .succeeded();
        assertDocumented("eval", file, false);
        Map<String, TreeSet<String>> found = new TreeMap<>();
        collect("", read(file), found);
        assertThat(found.keySet())
                .containsAll(documented("eval").keySet().stream()
                        .filter(name -> name.contains("choices."))
                        .toList());
    }

    @Test
    void sweep() throws IOException {
        Path file = folder.resolve("a.json");
        Cli.Run run = Cli.run(
                "sweep",
                MODEL,
                "--ratios",
                "0.2,0.99",
                "--methods",
                "magnitude",
                "--calibration",
                Cli.tokens(folder),
                "--seq-len",
                8,
                "-o",
                folder.resolve("out"),
                "--work-dir",
                folder.resolve("work"),
                "--json",
                file);
        assertThat(run.code()).as(run.err()).isEqualTo(1);
        assertDocumented("sweep", file, true);
    }

    /**
     * Compares a JSON file with the documented fields.
     *
     * @param complete whether the run fills every field
     */
    private static void assertDocumented(String command, Path file, boolean complete) throws IOException {
        Map<String, String> documented = documented(command);
        Map<String, TreeSet<String>> found = new TreeMap<>();
        collect("", read(file), found);
        found.remove("");

        assertThat(documented.keySet()).containsAll(found.keySet());
        if (complete) {
            // A model has either a perplexity or a similarity or answers, and tokens go only where that is asked for.
            Pattern others = Pattern.compile("(similarity|vocabulary|(against\\.)?choices)\\..*");
            assertThat(found.keySet())
                    .containsAll(documented.keySet().stream()
                            .filter(others.asMatchPredicate().negate())
                            .toList());
        } else {
            assertThat(found.keySet())
                    .containsAll(documented.keySet().stream()
                            .filter(name -> !name.contains("."))
                            .toList());
        }
        found.forEach((name, types) ->
                assertThat(documented.get(name).split(" or ")).as(name).containsAll(types));
    }

    private static JsonNode read(Path file) throws IOException {
        return new ObjectMapper().readTree(file.toFile());
    }

    private static Map<String, String> documented(String command) throws IOException {
        Map<String, String> fields = new TreeMap<>();
        String section = "";
        for (String line : Files.readAllLines(DOCUMENT)) {
            section = line.startsWith("## ") ? line.substring(3) : section;
            Matcher row = ROW.matcher(line);
            if (section.equals(command) && row.matches()) {
                fields.put(row.group(1), row.group(2));
            }
        }
        assertThat(fields).isNotEmpty();
        return fields;
    }

    private static void collect(String name, JsonNode node, Map<String, TreeSet<String>> found) {
        TreeSet<String> types = found.computeIfAbsent(name, key -> new TreeSet<>());
        // An empty list matches a list of any type.
        if (!node.isArray() || !node.isEmpty()) {
            types.add(type(node));
        }
        if (node.isObject()) {
            node.properties()
                    .forEach(field -> collect(
                            name.isEmpty() ? field.getKey() : name + "." + field.getKey(), field.getValue(), found));
        }
        node.forEach(element -> {
            if (node.isArray() && element.isObject()) {
                collect(name + "[]", element, found);
                found.remove(name + "[]");
            }
        });
    }

    private static String type(JsonNode node) {
        return switch (node.getNodeType()) {
            case ARRAY -> node.get(0).isTextual() ? "list of string" : "list";
            case OBJECT -> "object";
            case STRING -> "string";
            case BOOLEAN -> "boolean";
            case NULL -> "null";
            case NUMBER -> node.isIntegralNumber() ? "integer" : "number";
            case BINARY, MISSING, POJO -> throw new AssertionError(node);
        };
    }
}
