// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.onnxprune.eval.Tokens;
import io.onnxprune.ir.Model;
import io.onnxprune.onnx.ModelReader;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** {@code --prune vocabulary} from the command line to the files of the new folder. */
@Tag("ort")
class VocabularyTest {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final int ROWS = 512;

    @TempDir
    private Path folder;

    private Path input;
    private Path out;
    private Path text;

    @BeforeEach
    void copyModel() throws IOException {
        input = folder.resolve("in");
        out = folder.resolve("out");
        text = Files.copy(Path.of("docs", "recovery.md"), folder.resolve("text.txt"));
        Cli.copy(Path.of("testmodels", "stories-llama"), input);
    }

    private void addTokenizer() throws IOException {
        Path tokenizer = Path.of("src", "test", "resources", "tokenizers", "byte-fallback", "tokenizer.json");
        Files.copy(tokenizer, input.resolve("tokenizer.json"));
    }

    private Cli.Run prune(Object... options) {
        List<Object> all = new ArrayList<>(List.of(input, "-o", out, "--json", folder.resolve("report.json")));
        all.addAll(Cli.withoutData(options));
        return Cli.run(all.toArray());
    }

    private JsonNode report() throws IOException {
        return read(folder.resolve("report.json"));
    }

    private static JsonNode read(Path file) throws IOException {
        return JSON.readTree(file.toFile());
    }

    @Test
    void folderFitsTogether() throws IOException {
        addTokenizer();
        Files.writeString(
                input.resolve("tokenizer_config.json"),
                "{\"added_tokens_decoder\": {\"2\": {\"content\": \"</s>\"}}, \"bos_token\": \"<s>\"}");
        Files.writeString(input.resolve("added_tokens.json"), "{\"</s>\": 2}");
        Files.writeString(input.resolve("tokenizer.model"), "binary");
        Files.writeString(
                input.resolve("generation_config.json"),
                "{\"eos_token_id\": [2, 400], \"pad_token_id\": -1, \"forced_decoder_ids\": [[1, 401]], \"bos_token_id\": 1}");

        Cli.Run run = prune("--prune", "vocabulary", "--ratio", "0.02", "--calibration", text, "--seq-len", "64")
                .succeeded();

        int size = read(out.resolve("config.json")).path("vocab_size").asInt();
        JsonNode map = read(out.resolve("vocabulary_map.json"));
        assertThat(size)
                .isLessThan(ROWS - 80)
                .isEqualTo(map.path("tokens_after").asInt());
        assertThat(report().path("ratio_achieved").asDouble()).isBetween(0.02, 0.0205);
        JsonNode tokens = report().path("vocabulary");
        assertThat(tokens.path("tokens_before").asInt()).isEqualTo(ROWS);
        assertThat(tokens.path("tokens_after").asInt()).isEqualTo(size);
        assertThat(tokens.at("/held_out/growth").asDouble()).isGreaterThan(1);
        assertThat(tokens.at("/held_out/perplexity_per_byte_before").asDouble()).isGreaterThan(1);
        assertThat(report().at("/evaluation_after/tokens").asInt()).isPositive();
        assertThat(report().at("/data/sources/0/name").asText()).isEqualTo(text.toString());
        assertThat(run.out()).contains("tokens", "perplexity per byte", "of 512 tokens stay");
        assertThat(run.err()).contains("tokenizer.model names tokens of the whole vocabulary and was left out");
        assertThat(out.resolve("tokenizer.model")).doesNotExist();

        JsonNode generation = read(out.resolve("generation_config.json"));
        JsonNode ids = map.path("new_ids");
        assertThat(generation.at("/eos_token_id/1").asInt())
                .isEqualTo(ids.path("400").asInt(-1));
        assertThat(generation.at("/forced_decoder_ids/0/1").asInt())
                .isEqualTo(ids.path("401").asInt(-1));
        assertThat(generation.at("/forced_decoder_ids/0/0").asInt()).isEqualTo(1);
        assertThat(generation.path("pad_token_id").asInt()).isEqualTo(-1);
        assertThat(read(out.resolve("added_tokens.json")).path("</s>").asInt()).isEqualTo(2);
        assertThat(read(out.resolve("tokenizer_config.json"))
                        .at("/added_tokens_decoder/2/content")
                        .asText())
                .isEqualTo("</s>");
        try (Tokens tokenizer = new Tokens(out.resolve("tokenizer.json"))) {
            assertThat(Arrays.stream(tokenizer.withBeginning(Files.readString(text))))
                    .allMatch(id -> id >= 0 && id < size);
        }
        Model model = ModelReader.read(out.resolve("model.onnx"));
        assertThat(model.metadata()).containsEntry("onnx_prune.vocabulary", "512 -> " + size);
        assertThat(model.metadata().get("onnx_prune.kept_tokens").split(",")).hasSize(size);
    }

    @Test
    void resultCanBePrunedAgain() throws IOException {
        addTokenizer();
        prune("--prune", "vocabulary", "--calibration", text, "--seq-len", "64").succeeded();
        int once = report().at("/vocabulary/tokens_after").asInt();
        input = out;
        out = folder.resolve("again");

        prune("--prune", "vocabulary,ffn", "--ratio", "0.3", "--calibration", text, "--seq-len", "64")
                .succeeded();

        assertThat(report().at("/vocabulary/tokens_before").asInt()).isEqualTo(once);
        assertThat(report().path("ratio_achieved").asDouble()).isBetween(0.299, 0.31);
        Cli.run("eval", out, "--data", text, "--seq-len", "64").succeeded();
    }

    @Test
    void otherStructuresGetTheRestOfTheTarget() throws IOException {
        addTokenizer();
        long before = ofParameters(prune("--dry-run", "--prune", "ffn", "--ratio", "0.2"), "parameters_before");

        prune("--prune", "vocabulary,ffn", "--ratio", "0.2", "--calibration", text, "--seq-len", "64")
                .succeeded();

        assertThat(report().path("parameters_before").asLong()).isEqualTo(before);
        assertThat(report().path("ratio_achieved").asDouble()).isBetween(0.199, 0.21);
        assertThat(report().at("/vocabulary/tokens_after").asInt()).isLessThan(ROWS);
        assertThat(report().path("dimensions")).anySatisfy(dimension -> {
            assertThat(dimension.path("role").asText()).isEqualTo("ffn");
            assertThat(dimension.path("kept").asInt())
                    .isLessThan(dimension.path("size").asInt());
        });
        assertThat(report().path("dimensions")).anySatisfy(dimension -> {
            assertThat(dimension.path("role").asText()).isEqualTo("vocabulary");
            assertThat(dimension.path("size").asInt()).isEqualTo(ROWS);
        });
    }

    private long ofParameters(Cli.Run run, String key) throws IOException {
        run.succeeded();
        return report().path(key).asLong();
    }

    @Test
    void listSaysWhatStays() throws IOException {
        addTokenizer();
        Path list = Files.writeString(folder.resolve("keep.txt"), "▁the\n300\n");

        prune("--prune", "vocabulary", "--vocabulary-keep", list).succeeded();

        JsonNode vocabulary = read(out.resolve("tokenizer.json")).at("/model/vocab");
        assertThat(vocabulary.has("▁the")).isTrue();
        assertThat(read(out.resolve("vocabulary_map.json")).at("/new_ids").has("300"))
                .isTrue();
        // Special tokens, bytes, the character for a space, and what the two tokens are joined from.
        assertThat(vocabulary).hasSizeBetween(262, 270);
        assertThat(report().path("ratio_requested").isNull()).isTrue();
        try (Tokens tokenizer = new Tokens(out.resolve("tokenizer.json"))) {
            assertThat(tokenizer.alone("the"))
                    .containsExactly(vocabulary.path("▁the").asInt());
            assertThat(tokenizer.text(tokenizer.alone("Größe ☃"))).isEqualTo("Größe ☃");
        }
    }

    @Test
    void idsDoWithoutATokenizer() throws IOException {
        prune("--prune", "vocabulary,heads", "--ratio", "0.1", "--method", "llm-pruner", "--calibration", rows())
                .succeeded();

        // 1 to 79 occur, and configurations name 1 and 2.
        assertThat(report().at("/vocabulary/tokens_after").asInt()).isLessThan(ROWS);
        assertThat(report().at("/vocabulary/held_out").isNull()).isTrue();
        assertThat(report().at("/evaluation_before/tokens").asInt())
                .isEqualTo(report().at("/evaluation_after/tokens").asInt());
        JsonNode map = read(out.resolve("vocabulary_map.json")).path("new_ids");
        IntStream.range(1, 80)
                .forEach(id -> assertThat(map.has(Integer.toString(id))).isTrue());
        assertThat(read(out.resolve("config.json")).path("bos_token_id").asInt())
                .isEqualTo(map.path("1").asInt(-1));
    }

    @Test
    void nothingElseGoesWhereTokensReachTheTarget() throws IOException {
        Cli.Run run = prune("--prune", "vocabulary,ffn", "--ratio", "0.01", "--calibration", rows())
                .succeeded();

        assertThat(run.err()).contains("the vocabulary alone comes to the target");
        assertThat(report().path("ratio_achieved").asDouble()).isBetween(0.01, 0.0105);
    }

    /** Rows of a few tokens. */
    private Path rows() throws IOException {
        String row = IntStream.range(1, 80).mapToObj(Integer::toString).collect(Collectors.joining(","));
        return Files.writeString(folder.resolve("ids.jsonl"), ("{\"input_ids\":[" + row + "]}\n").repeat(8));
    }

    @Test
    void dryRunWritesNothing() throws IOException {
        addTokenizer();
        Cli.run(Cli.withoutData(input, "--dry-run", "--prune", "vocabulary", "--calibration", text)
                        .toArray())
                .succeeded();
        assertThat(out).doesNotExist();
    }

    @Test
    void whatCannotBeDone() throws IOException {
        addTokenizer();
        Path list = Files.writeString(folder.resolve("keep.txt"), "300\n");
        prune("--prune", "vocabulary").failed(2, "give --calibration FILE with text, or --vocabulary-keep FILE");
        prune("--prune", "vocabulary", "--vocabulary-keep", list, "--ratio", "0.1")
                .failed(2, "--ratio has no effect");
        prune("--vocabulary-keep", list).failed(2, "--vocabulary-keep is for --prune vocabulary");
        prune("--prune", "vocabulary", "--vocabulary-keep", list, "--plan-out", folder.resolve("p"))
                .failed(2, "--plan-out has no place for tokens");
        prune("--prune", "vocabulary", "--ratio", "0.5", "--calibration", text)
                .failed(1, "the vocabulary alone cannot come to the target", "of 512 tokens can go", "must stay");
        prune("--prune", "vocabulary", "--calibration", text, "--recover", text)
                .failed(2, "use onnx-prune recover on the result");
        Path ids = Files.writeString(folder.resolve("ids.jsonl"), "{\"input_ids\": [1, 2]}\n");
        prune("--prune", "vocabulary,ffn", "--calibration", text, "--recover", ids)
                .failed(2, "has rows of token ids");
        out = folder.resolve("out.onnx");
        prune("--prune", "vocabulary", "--vocabulary-keep", list).failed(2, "give -o a folder");
    }

    @Test
    void listsOfTokensBesideTheTokenizer() throws IOException {
        addTokenizer();
        JsonNode model = read(input.resolve("tokenizer.json")).path("model");
        Files.writeString(input.resolve("vocab.json"), model.path("vocab").toString());
        List<String> merges = new ArrayList<>(List.of("#version: 0.2"));
        model.path("merges")
                .forEach(merge ->
                        merges.add(merge.path(0).asText() + " " + merge.path(1).asText()));
        Files.write(input.resolve("merges.txt"), merges);
        Path list = Files.writeString(folder.resolve("keep.txt"), "▁the\n");

        prune("--prune", "vocabulary", "--vocabulary-keep", list).succeeded();

        JsonNode reduced = read(out.resolve("tokenizer.json")).path("model");
        assertThat(read(out.resolve("vocab.json"))).isEqualTo(reduced.path("vocab"));
        assertThat(Files.readAllLines(out.resolve("merges.txt")))
                .hasSize(1 + reduced.path("merges").size());
    }

    @Test
    void lastLogitsAndOtherForms() throws IOException {
        addTokenizer();
        Path list = Files.writeString(folder.resolve("keep.txt"), "300\n");
        prune("--prune", "vocabulary", "--vocabulary-keep", list, "--last-logits", "--external-data")
                .succeeded();
        assertThat(out.resolve("model.onnx.data")).exists();
    }

    @Test
    void layoutAndCardAreThoseOfTheOriginal() throws IOException {
        addTokenizer();
        Files.createDirectories(input.resolve("onnx"));
        Files.move(input.resolve("model.onnx"), input.resolve("onnx/model.onnx"));

        prune("--prune", "vocabulary", "--ratio", "0.02", "--calibration", text, "--base-model", "owner/name")
                .succeeded();

        assertThat(out.resolve("onnx/model.onnx")).exists();
        assertThat(out.resolve("tokenizer.json")).exists();
        assertThat(Files.readString(out.resolve("README.md")))
                .contains(
                        "base_model: owner/name",
                        "onnx-prune " + input,
                        "| parameters | 1,318,528 |",
                        "| tokens | 512 |");
    }

    @Test
    void clientsLimitWhatElseIsPruned() throws IOException {
        addTokenizer();

        Cli.Run run = prune(
                        "--prune",
                        "vocabulary,heads,ffn",
                        "--ratio",
                        "0.1",
                        "--calibration",
                        text,
                        "--method",
                        "magnitude",
                        "--for",
                        "optimum")
                .succeeded();

        assertThat(run.err()).contains("heads").contains("optimum");
        JsonNode config = read(out.resolve("config.json"));
        assertThat(config.path("num_attention_heads").asInt()).isEqualTo(8);
        assertThat(config.path("intermediate_size").asInt()).isLessThan(344);
        assertThat(config.path("vocab_size").asInt()).isLessThan(ROWS);
        assertThat(config.has("per_layer_config")).isFalse();
    }
}
