// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.diag.UserException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** A tokenizer that crashes, panics, hangs or fails is one sentence, and this process goes on. */
@Timeout(value = 60, unit = TimeUnit.SECONDS)
class TextTokenizerTest {
    private static final String WORDS =
            "{\"type\": \"WordLevel\", \"vocab\": {\"[UNK]\": 0, \"a\": 1, \"b\": 2}, \"unk_token\": \"[UNK]\"}";
    private static final String WHITESPACE = "{\"type\": \"Whitespace\"}";

    @TempDir
    private Path folder;

    private Path tokenizer(String normalizer, String split, String model) throws IOException {
        return Files.writeString(folder.resolve("tokenizer.json"), """
                {"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": %s,
                 "pre_tokenizer": %s, "post_processor": null, "decoder": null, "model": %s}
                """.formatted(normalizer, split, model));
    }

    private static String split(String expression) {
        return "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"%s\"}, \"behavior\": \"Isolated\", \"invert\": false}"
                .formatted(expression);
    }

    private static void assertRefused(Path file, String text, String... parts) {
        assertThatThrownBy(() -> DataReaders.tokenizer(file, text))
                .isInstanceOf(UserException.class)
                .hasMessageContainingAll(parts)
                .hasMessageContaining("the tokenizer " + file)
                .hasMessageContaining("give the tokenizer.json that the model was exported with");
    }

    @Test
    void textIsEncoded() throws IOException {
        try (TextTokenizer tokenizer = new TextTokenizer(tokenizer("null", WHITESPACE, WORDS))) {
            assertThat(tokenizer.encode("a b ü a")).containsExactly(1, 2, 0, 1);
            assertThat(tokenizer.encode("")).isEmpty();
            assertThat(tokenizer.beginning()).isEmpty();
        }
    }

    @Test
    void expressionsWithManyGroups() throws IOException {
        assertRefused(
                tokenizer("null", split("(".repeat(9000) + "a" + ")".repeat(9000)), WORDS),
                "a",
                "more than 100 groups inside each other");
        assertRefused(
                tokenizer("null", split("(".repeat(20_000) + "a" + ")".repeat(20_000)), WORDS),
                "a",
                "regular expression of more than 20,000 characters");
    }

    @Test
    void nestedAndManySteps() throws IOException {
        String inner = "{\"type\": \"Sequence\", \"normalizers\": [".repeat(50) + "]}".repeat(50);
        assertRefused(tokenizer(inner, WHITESPACE, WORDS), "a", "nested more than 60 deep");
        String steps = "{\"type\": \"Lowercase\"},".repeat(2000) + "{\"type\": \"Lowercase\"}";
        assertRefused(
                tokenizer("{\"type\": \"Sequence\", \"normalizers\": [" + steps + "]}", WHITESPACE, WORDS),
                "a",
                "more than 1,000 steps");
    }

    @Test
    void anExpressionThatBacktracksWithoutAnEnd() throws IOException {
        assertRefused(
                tokenizer("null", split("(a+)+$"), WORDS),
                "a".repeat(60) + "b",
                "cannot encode text: its native library ended (",
                "retry-limit-in-match over");
    }

    /** Each position takes a time below the library's limit, and there are many. */
    @Test
    void anExpressionThatBacktracksForLong() throws IOException {
        Path file = tokenizer("null", split("a*a*a*[0-9]"), WORDS);
        try (TextTokenizer tokenizer = new TextTokenizer(file, Duration.ofMillis(500))) {
            String text = ("a".repeat(150) + "b").repeat(200) + "1";
            assertThatThrownBy(() -> tokenizer.encode(text))
                    .isInstanceOf(UserException.class)
                    .hasMessageContaining("took more than ")
                    .hasMessageContaining(" seconds to encode text");
        }
    }

    @Test
    void aNormalizerOnWhichTheLibraryPanics() throws IOException {
        assertRefused(
                tokenizer(
                        "{\"type\": \"Precompiled\", \"precompiled_charsmap\": \"AAAAQEFBQUFBQUFB\"}",
                        WHITESPACE,
                        WORDS),
                "a",
                "cannot be loaded: its native library ended");
    }

    @Test
    void anUnknownTokenThatIsNotInTheVocabulary() throws IOException {
        assertRefused(
                tokenizer("null", WHITESPACE, WORDS.replace("\"[UNK]\": 0, ", "")),
                "a c",
                "cannot encode text (WordLevel error: Missing [UNK] token from the vocabulary)");
    }

    @Test
    void textsThatAreNoTokenizer() throws IOException {
        assertRefused(Files.writeString(folder.resolve("t.json"), "[1"), "a", "holds no JSON object");
        assertRefused(Files.writeString(folder.resolve("t.json"), "{\"a\": 1"), "a", "is not JSON");
        assertRefused(Files.writeString(folder.resolve("t.json"), "{\"a\": 1}"), "a", "cannot be read (");
        assertRefused(Files.writeString(folder.resolve("t.json"), "\u0000"), "a", "is not JSON");
    }
}
