// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.vocabulary;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.diag.UserException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.BitSet;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Which tokens stay. */
class TokenChoiceTest {
    @TempDir
    private Path folder;

    /** a=0, b=1, c=2, ab=3, abc=4, bc=5, cc=6; abc is joined from ab and c. */
    private TokenizerFile tokenizer() throws IOException {
        return TokenizerFile.read(Files.writeString(folder.resolve("tokenizer.json"), """
                {"added_tokens": [], "model": {"type": "BPE",
                 "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4, "bc": 5, "cc": 6},
                 "merges": ["a b", ["ab", "c"], "b c", "c c"]}}
                """));
    }

    private static BitSet ids(int... ids) {
        BitSet set = new BitSet();
        for (int id : ids) {
            set.set(id);
        }
        return set;
    }

    private TokenChoice choice(int size) throws IOException {
        return new TokenChoice(size, Optional.of(tokenizer()), new BitSet());
    }

    @Test
    void rarestGoFirstAndOfEqualOnesTheHighest() throws IOException {
        long[] counts = {0, 0, 0, 0, 9, 1, 1};

        assertThat(choice(7).rarest(counts, 1, Long.MAX_VALUE).ids()).containsExactly(0, 1, 2, 3, 4, 5);
        assertThat(choice(7).rarest(counts, 2, Long.MAX_VALUE).ids()).containsExactly(0, 1, 2, 3, 4);
        // What abc is joined from stays as long as abc does.
        assertThat(choice(7).rarest(counts, 3, Long.MAX_VALUE).ids()).containsExactly(0, 1, 2, 3);
        assertThat(choice(7).rarest(counts, 9, Long.MAX_VALUE).ids()).containsExactly(0, 1, 2);
    }

    @Test
    void limitKeepsWhatOccurs() throws IOException {
        assertThat(choice(7).rarest(new long[] {1, 1, 1, 0, 0, 0, 1}, 9, 0).ids())
                .containsExactly(0, 1, 2, 6);
        assertThat(choice(7).rarest(new long[] {0, 0, 0, 0, 1, 0, 0}, 9, 0).ids())
                .containsExactly(0, 1, 2, 3, 4);
    }

    @Test
    void rowsWithoutATokenGoFirst() throws IOException {
        assertThat(choice(10).rarest(new long[7], 3, 0).ids()).containsExactly(0, 1, 2, 3, 4, 5, 6);
    }

    @Test
    void namedIdsStayAndIdsBeyondTheModelAreNone() throws IOException {
        TokenChoice choice = new TokenChoice(6, Optional.of(tokenizer()), ids(5, 6, 900));

        assertThat(choice.required().stream()).containsExactly(0, 1, 2, 5);
        assertThat(choice.rarest(new long[6], 9, 0).ids()).containsExactly(0, 1, 2, 5);
    }

    @Test
    void withoutATokenizerNothingElseMustStay() {
        TokenChoice choice = new TokenChoice(5, Optional.empty(), ids(1));

        assertThat(choice.keeping(ids(4)).ids()).containsExactly(1, 4);
        assertThat(choice.rarest(new long[] {3, 0, 2}, 9, 2).ids()).containsExactly(0, 1);
    }

    private BitSet listed(String content) throws IOException {
        return KeepFile.read(Files.writeString(folder.resolve("keep.txt"), content), 7, Optional.of(tokenizer()));
    }

    @Test
    void lists() throws IOException {
        assertThat(listed("ab\n\n 2 \nbc\r\n")).isEqualTo(ids(2, 3, 5));
        assertThat(listed("[\"ab\", 2]")).isEqualTo(ids(2, 3));
        assertThat(listed("[[\"ab\", -1.5], [\"c\", 0]]")).isEqualTo(ids(2, 3));
        assertThat(listed("{\"ab\": 77}")).isEqualTo(ids(3));
    }

    @Test
    void listsThatCannotBeUsed() throws IOException {
        assertRefused("7\n", "the model has no token id 7, only 0 to 6");
        assertRefused("abx\n", "the tokenizer has no token \"abx\"");
        assertRefused("\n", "it lists no token");
        assertRefused("[\"ab\", true]", "an entry is neither a token nor an id: true");
        assertRefused("[\"ab\"", "it begins as JSON and is none");
        assertThatThrownBy(
                        () -> KeepFile.read(Files.writeString(folder.resolve("keep.txt"), "ab"), 7, Optional.empty()))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("without a tokenizer.json it takes ids only, not \"ab\"");
        assertThatThrownBy(() -> KeepFile.read(folder.resolve("none"), 7, Optional.empty()))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("--vocabulary-keep");
    }

    private void assertRefused(String content, String reason) {
        assertThatThrownBy(() -> listed(content))
                .isInstanceOf(UserException.class)
                .hasMessageContaining(reason);
    }
}
