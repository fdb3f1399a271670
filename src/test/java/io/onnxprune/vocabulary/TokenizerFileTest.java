// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.vocabulary;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.onnxprune.diag.UserException;
import io.onnxprune.eval.Tokens;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.BitSet;
import java.util.Comparator;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Tokenizers of all kinds that lost tokens, compared with the originals by the library that makes tokens of text. */
class TokenizerFileTest {
    private static final List<String> WRITING_BYTES = List.of("byte-level", "byte-fallback", "unigram-bytes");

    @TempDir
    private Path folder;

    private static Path resource(String kind) {
        return Path.of("src", "test", "resources", "tokenizers", kind, "tokenizer.json");
    }

    /** Text that counts are taken from, and other text of the same kind. */
    private static String text(String name) throws IOException {
        return Files.readString(Path.of("docs", name)).toLowerCase(Locale.ROOT);
    }

    private static KeptTokens rarest(TokenizerFile file, Tokens tokens, int gone) throws IOException {
        long[] counts = new long[file.size()];
        text("reliability.md")
                .lines()
                .forEach(line -> Arrays.stream(tokens.alone(line)).forEach(id -> counts[id]++));
        return new TokenChoice(file.size(), Optional.of(file), new BitSet()).rarest(counts, gone, Long.MAX_VALUE);
    }

    private Path reduced(TokenizerFile file, KeptTokens kept) throws IOException {
        return Files.write(folder.resolve("tokenizer.json"), file.reduced(kept));
    }

    private static int[] renumbered(KeptTokens kept, int[] ids) {
        return Arrays.stream(ids).map(kept::newId).toArray();
    }

    @ParameterizedTest
    @ValueSource(strings = {"byte-level", "byte-fallback", "unigram", "unigram-bytes", "wordpiece"})
    void keptTokensAreMadeOfTheSameText(String kind) throws IOException {
        TokenizerFile file = TokenizerFile.read(resource(kind));
        try (Tokens before = new Tokens(resource(kind))) {
            KeptTokens kept = rarest(file, before, 150);
            assertThat(kept.before() - kept.after()).isEqualTo(150);
            try (Tokens after = new Tokens(reduced(file, kept))) {
                int same = 0;
                int longer = 0;
                for (String word : text("recovery.md").split("(?=[ \n])")) {
                    int[] old = before.alone(word);
                    int[] ids = after.alone(word);
                    assertThat(Arrays.stream(ids)).as(word).allMatch(id -> id >= 0 && id < kept.after());
                    assertThat(after.text(ids)).isEqualTo(before.text(old));
                    if (Arrays.stream(old).allMatch(id -> kept.newId(id) >= 0)) {
                        assertThat(ids).as(word).isEqualTo(renumbered(kept, old));
                        same++;
                    } else {
                        longer++;
                    }
                }
                assertThat(same).isPositive();
                assertThat(longer).isPositive();
            }
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"byte-level", "byte-fallback", "unigram", "unigram-bytes", "wordpiece"})
    void everyByteIsWrittenAsBefore(String kind) throws IOException {
        TokenizerFile file = TokenizerFile.read(resource(kind));
        KeptTokens kept = new TokenChoice(file.size(), Optional.of(file), new BitSet()).keeping(new BitSet());
        try (Tokens before = new Tokens(resource(kind));
                Tokens after = new Tokens(reduced(file, kept))) {
            // UTF-8 has all bytes but C0, C1 and F5 to FF.
            List<String> texts = IntStream.concat(
                            IntStream.range(0, 0x800),
                            IntStream.iterate(0x800, c -> c < 0x110000, c -> c + 0x1F7)
                                    .filter(c -> c < 0xD800 || c > 0xDFFF))
                    .mapToObj(c -> "a" + Character.toString(c) + "b")
                    .toList();
            for (int start = 0; start < texts.size(); start += 64) {
                String text = String.join("", texts.subList(start, Math.min(start + 64, texts.size())));
                int[] ids = after.alone(text);
                assertThat(Arrays.stream(ids)).allMatch(id -> id >= 0 && id < kept.after());
                assertThat(after.text(ids)).isEqualTo(before.text(before.alone(text)));
                if (WRITING_BYTES.contains(kind)) {
                    assertThat(after.text(ids)).isEqualTo(text);
                }
            }
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"byte-level", "byte-fallback", "unigram", "unigram-bytes", "wordpiece"})
    void tokensThatTheFileNamesStay(String kind) throws IOException {
        TokenizerFile file = TokenizerFile.read(resource(kind));
        BitSet named = new BitSet();
        try (Tokens tokens = new Tokens(resource(kind))) {
            Arrays.stream(tokens.withBeginning("a")).forEach(named::set);
        }
        KeptTokens kept = new TokenChoice(file.size(), Optional.of(file), named).keeping(new BitSet());
        JsonNode before = new ObjectMapper().readTree(resource(kind).toFile());
        JsonNode after = new ObjectMapper().readTree(reduced(file, kept).toFile());

        assertThat(after.path("added_tokens")).hasSameSizeAs(before.path("added_tokens"));
        for (int i = 0; i < before.path("added_tokens").size(); i++) {
            assertThat(after.at("/added_tokens/" + i + "/id").asInt())
                    .isEqualTo(
                            kept.newId(before.at("/added_tokens/" + i + "/id").asInt()));
        }
        try (Tokens old = new Tokens(resource(kind));
                Tokens fresh = new Tokens(folder.resolve("tokenizer.json"))) {
            assertThat(fresh.withBeginning("a")).isEqualTo(renumbered(kept, old.withBeginning("a")));
        }
    }

    @Test
    void partsOfAJoinedTokenStay() {
        TokenizerFile file = TokenizerFile.read(resource("byte-level"));
        int longest = file.ids().entrySet().stream()
                .filter(entry -> !file.added().contains(entry.getValue()))
                .max(Comparator.comparingInt(entry -> entry.getKey().length()))
                .orElseThrow()
                .getValue();
        BitSet one = new BitSet();
        one.set(longest);
        TokenChoice choice = new TokenChoice(file.size(), Optional.of(file), new BitSet());

        KeptTokens kept = choice.keeping(one);

        assertThat(Arrays.stream(file.parts(longest))).hasSize(2).allMatch(part -> kept.newId(part) >= 0);
        assertThat(kept.after()).isGreaterThan(choice.required().cardinality() + 1);
    }

    @Test
    void idsInStepsGetNewNumbers() throws IOException {
        Path path = Files.writeString(folder.resolve("given.json"), """
                {"added_tokens": [{"id": 3, "content": "[E]", "special": true}],
                 "post_processor": {"type": "Sequence", "processors": [
                   {"type": "RobertaProcessing", "sep": ["[E]", 3], "cls": ["b", 1]},
                   {"type": "TemplateProcessing", "special_tokens": {"[E]": {"id": "[E]", "ids": [3], "tokens": ["[E]"]}}}]},
                 "padding": {"pad_id": 3, "pad_token": "[E]"},
                 "model": {"type": "Unigram", "unk_id": 1, "byte_fallback": false,
                   "vocab": [["ab", -1.0], ["b", -2.0], ["a", -3.0], ["[E]", 0.0]]}}
                """);
        TokenizerFile file = TokenizerFile.read(path);
        KeptTokens kept = new TokenChoice(4, Optional.of(file), new BitSet()).keeping(new BitSet());

        JsonNode reduced = new ObjectMapper().readTree(file.reduced(kept));

        assertThat(kept.ids()).containsExactly(1, 2, 3);
        assertThat(reduced.at("/post_processor/processors/0/sep/1").asInt()).isEqualTo(2);
        assertThat(reduced.at("/post_processor/processors/0/cls/1").asInt()).isEqualTo(0);
        assertThat(reduced.at("/post_processor/processors/1/special_tokens/[E]/ids/0")
                        .asInt())
                .isEqualTo(2);
        assertThat(reduced.at("/padding/pad_id").asInt()).isEqualTo(2);
        assertThat(reduced.at("/model/unk_id").asInt()).isEqualTo(0);
        assertThat(reduced.at("/model/vocab")).hasSize(3);
    }

    @Test
    void wordsThatNothingElseSpellsAreRefused() throws IOException {
        Path path = Files.writeString(
                folder.resolve("given.json"), "{\"model\": {\"type\": \"WordLevel\", \"vocab\": {\"a\": 0}}}");

        assertThatThrownBy(() -> TokenizerFile.read(path))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("of type WordLevel, which cannot spell a word in other tokens");
    }
}
