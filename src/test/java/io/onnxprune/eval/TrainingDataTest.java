// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.RecordedLog;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class TrainingDataTest {
    private static final long END = 2;
    private static final List<String> WORDS =
            List.of("Once", "upon", "a", "time", "there", "was", "very", "long", "story", "to", "tell");
    private static final int VOCABULARY = 100_000;

    @TempDir
    private Path folder;

    private Path model;

    @BeforeEach
    void aModelThatEndsText() throws IOException {
        model = folder.resolve("model.onnx");
        Files.writeString(folder.resolve("config.json"), "{\"eos_token_id\": " + END + "}");
        // One token for each word, 0 for unknown words.
        String words = IntStream.range(0, WORDS.size())
                .mapToObj(i -> "\"" + WORDS.get(i) + "\": " + (i + 10))
                .collect(Collectors.joining(", "));
        Files.writeString(
                folder.resolve("tokenizer.json"),
                "{\"version\": \"1.0\", \"added_tokens\": [], \"pre_tokenizer\": {\"type\": \"Whitespace\"}, \"model\":"
                        + " {\"type\": \"WordLevel\", \"unk_token\": \"?\", \"vocab\": {\"?\": 0, " + words + "}}}");
    }

    private List<Example> read(int length, Log log, String... lines) throws IOException {
        Path file = folder.resolve("data.jsonl");
        Files.write(file, List.of(lines));
        return TrainingData.read(file, model, Optional.empty(), length, VOCABULARY, log);
    }

    private long[] encoded(String text) {
        try (TextTokenizer tokenizer = new TextTokenizer(folder.resolve("tokenizer.json"))) {
            return tokenizer.encode(text);
        }
    }

    @Test
    void anAnswerCountsFromWhereItsPromptEnds() throws IOException {
        Example row = read(64, Log.NONE, "{\"prompt\": \"Once upon\", \"completion\": \" a time\"}")
                .get(0);

        long[] both = encoded("Once upon a time");
        assertThat(Arrays.copyOf(row.tokens(), both.length)).containsExactly(both);
        assertThat(row.tokens()).hasSize(both.length + 1).endsWith(END);
        assertThat(Arrays.copyOf(row.tokens(), row.first())).containsExactly(encoded("Once upon"));
    }

    @Test
    void instructionsAreFramedAndTheirInputMayBeMissing() throws IOException {
        List<Example> rows = read(
                512,
                Log.NONE,
                "{\"instruction\": \"Go home\", \"input\": \"\", \"output\": \"Yes\"}",
                "{\"instruction\": \"Go home\", \"output\": \"Yes\"}",
                "{\"instruction\": \"Go home\", \"input\": \"now\", \"output\": \"Yes\"}");

        assertThat(rows.get(0).tokens()).containsExactly(rows.get(1).tokens());
        assertThat(rows.get(0).predictions()).isEqualTo(rows.get(2).predictions());
        assertThat(rows.get(2).first()).isGreaterThan(rows.get(0).first());
    }

    @Test
    void answersThatDoNotBeginWithinARowAreLeftOutWithAWarning() throws IOException {
        RecordedLog log = new RecordedLog();
        List<Example> rows = read(
                8,
                log,
                "{\"prompt\": \"Once\", \"completion\": \" upon a time there was a very long story to tell\"}",
                "{\"prompt\": \"Once upon a time there was a very long story to tell\", \"completion\": \" no\"}");

        assertThat(rows)
                .singleElement()
                .satisfies(row -> assertThat(row.tokens()).hasSize(8));
        assertThat(log.lines()).anySatisfy(line -> assertThat(line).contains("1 prompts", "--seq-len"));
        assertThatThrownBy(() -> read(2, Log.NONE, "{\"prompt\": \"Once upon a time\", \"completion\": \" no\"}"))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("no answer begins");
    }

    @Test
    void shorterRowsOfIdsAreKeptAndTextIsCut() throws IOException {
        List<Example> rows = read(
                4,
                Log.NONE,
                "{\"input_ids\": [1, 2, 3]}",
                "{\"input_ids\": [1, 2, 3, 4, 5, 6, 7, 8, 9]}",
                "{\"text\": \"Once upon a time there was\"}");

        assertThat(rows.stream().map(row -> row.tokens().length).distinct()).containsExactly(3, 4);
        assertThat(rows).allSatisfy(row -> assertThat(row.first()).isEqualTo(1));
    }

    @Test
    void aLineOfUnknownFormatIsNamed() {
        assertThatThrownBy(() -> read(8, Log.NONE, "{\"question\": \"why\"}"))
                .isInstanceOf(UserException.class)
                .hasMessageContainingAll("line 1", "instruction and output");
    }
}
