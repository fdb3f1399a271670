// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import static java.nio.charset.StandardCharsets.ISO_8859_1;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.onnxprune.diag.UserException;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Optional;
import java.util.OptionalInt;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class TokenDataTest {
    private static final Path TOKENIZER = Path.of("../shared/data/stories/tokenizer.json");

    @TempDir
    private Path folder;

    private TokenData read(String name, String content, int length) throws IOException {
        Path file = Files.writeString(folder.resolve(name), content);
        return TokenData.read(file, Optional.empty(), length == 0 ? OptionalInt.empty() : OptionalInt.of(length));
    }

    private void assertRefused(String name, String content, String... parts) {
        assertThatThrownBy(() -> read(name, content, 0))
                .isInstanceOf(UserException.class)
                .hasMessageContainingAll(parts)
                .hasMessageContaining(name)
                .hasMessageNotContaining("\n");
    }

    @Test
    void rowsOfIdsAreNotChanged() throws IOException {
        TokenData data = read("a.jsonl", "{\"input_ids\":[1,2,3]}\n\n{\"input_ids\":[4]}\n{\"input_ids\":[5,6]}\n", 0);
        assertThat(data.rows()).containsExactly(new long[] {1, 2, 3}, new long[] {5, 6});
    }

    @Test
    void longRowsAreCutIntoWindowsAndTheRemainderIsDropped() throws IOException {
        TokenData data = read("a.jsonl", "{\"input_ids\":[1,2,3,4,5]}\n{\"input_ids\":[6,7]}\n", 2);
        assertThat(data.rows()).containsExactly(new long[] {1, 2}, new long[] {3, 4}, new long[] {6, 7});
    }

    @Test
    void badFilesAreRejectedInOneSentence() {
        assertRefused("a.jsonl", "", "is empty");
        assertRefused("a.jsonl", "{\"input_ids\":[1]}\n", "no row", "2 tokens");
        assertRefused("a.jsonl", "{\"input_ids\":[1,2]}\n{\"input_ids\":[1,\n", "line 2", "not valid JSON");
        assertRefused("a.jsonl", "{\"input_ids\":[1,2.5]}\n", "line 1", "2.5");
        assertRefused("a.jsonl", "{\"ids\":[1,2]}\n", "line 1", "neither");
        assertRefused("a.jsonl", "{\"input_ids\":[1,18446744073709551617]}\n", "line 1", "integer of 64 bits");
        assertRefused("a.jsonl", "{\"a\":".repeat(5000) + "\n", "line 1", "not valid JSON");
        assertRefused("a.jsonl", "{\"text\":\"Once\"}\n", "--tokenizer");
        assertRefused("a.txt", "Once upon", "--tokenizer");
        assertRefused("a.bin", "Once upon", "unknown type", ".jsonl");
        assertRefused("a.npy", "Once upon a time", "no NumPy header");
        assertThatThrownBy(() -> TokenData.read(folder.resolve("none.jsonl"), Optional.empty(), OptionalInt.empty()))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("does not exist");
        assertThatThrownBy(() -> read("b.jsonl", "{\"input_ids\":[1,2]}", 1))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("too short");
    }

    @Test
    void textThatIsNotUtf8IsRejected() throws IOException {
        Path file = Files.write(folder.resolve("a.jsonl"), new byte[] {'{', (byte) 0xff, (byte) 0xfe});
        assertThatThrownBy(() -> TokenData.read(file, Optional.empty(), OptionalInt.empty()))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("UTF-8");
    }

    @Test
    void textThatIsTooLongIsRejectedUnread() throws IOException {
        Path file = folder.resolve("a.txt");
        try (RandomAccessFile sparse = new RandomAccessFile(file.toFile(), "rw")) {
            sparse.setLength(3L << 30);
        }
        assertThatThrownBy(() -> TokenData.read(file, Optional.empty(), OptionalInt.empty()))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("a.txt has over 1 GiB of text");
    }

    @Test
    void idsOutsideTheVocabularyBlameTheTokenizer() throws IOException {
        TokenData data = read("a.jsonl", "{\"input_ids\":[1,2,511]}\n", 0);
        data.requireVocabulary(512);
        assertThatThrownBy(() -> data.requireVocabulary(320))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("token id 511")
                .hasMessageContaining("vocabulary of 320")
                .hasMessageContaining("tokenizer does not match");
    }

    @Test
    void numpyArraysOfBothWidthsAndRanks() throws IOException {
        Path two = numpy("two.npy", "<i4", "(2, 3)", 1, 2, 3, 4, 5, 6);
        assertThat(TokenData.read(two, Optional.empty(), OptionalInt.empty()).rows())
                .containsExactly(new long[] {1, 2, 3}, new long[] {4, 5, 6});
        Path one = numpy("one.npy", "<i8", "(5,)", 1, 2, 3, 4, 5);
        assertThat(TokenData.read(one, Optional.empty(), OptionalInt.of(2)).rows())
                .containsExactly(new long[] {1, 2}, new long[] {3, 4});
        Path three = numpy("three.npy", "<i8", "(1, 1, 2)", 1, 2);
        assertThatThrownBy(() -> TokenData.read(three, Optional.empty(), OptionalInt.empty()))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("one or two axes");
        Path truncated = numpy("cut.npy", "<i8", "(100,)", 1, 2);
        assertThatThrownBy(() -> TokenData.read(truncated, Optional.empty(), OptionalInt.empty()))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("truncated");
        Path floats = numpy("floats.npy", "<f8", "(2,)", 1, 2);
        assertThatThrownBy(() -> TokenData.read(floats, Optional.empty(), OptionalInt.empty()))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("int32 or int64");
    }

    private Path numpy(String name, String type, String shape, long... values) throws IOException {
        String header = "{'descr': '%s', 'fortran_order': False, 'shape': %s, }\n".formatted(type, shape);
        ByteBuffer bytes =
                ByteBuffer.allocate(10 + header.length() + 8 * values.length).order(ByteOrder.LITTLE_ENDIAN);
        bytes.put(new byte[] {(byte) 0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0});
        bytes.putShort((short) header.length()).put(header.getBytes(ISO_8859_1));
        for (long value : values) {
            if (type.equals("<i4")) {
                bytes.putInt((int) value);
            } else {
                bytes.putLong(value);
            }
        }
        return Files.write(folder.resolve(name), Arrays.copyOf(bytes.array(), bytes.position()));
    }

    @Test
    void textIsTokenizedJoinedAndCut() throws IOException {
        assumeTrue(Files.exists(TOKENIZER), TOKENIZER + " is absent");
        Path file = Files.writeString(folder.resolve("a.txt"), "Once upon a time. ".repeat(200));
        TokenData data = TokenData.read(file, Optional.of(TOKENIZER), OptionalInt.empty());
        assertThat(data.rows()).hasSize(3).allMatch(row -> row.length == 256);
        assertThat(data.rows().get(0)).startsWith(1, 403, 407, 261, 378);
        Path lines = Files.writeString(folder.resolve("a.jsonl"), "{\"text\":\"Once upon a time\"}\n".repeat(2));
        TokenData joined = TokenData.read(lines, Optional.of(TOKENIZER), OptionalInt.empty());
        assertThat(joined.rows()).containsExactly(new long[] {1, 403, 407, 261, 378, 1, 403, 407, 261, 378});
    }

    @Test
    void aDamagedTokenizerIsRejected() throws IOException {
        Path file = Files.writeString(folder.resolve("a.txt"), "Once upon a time");
        Path broken = Files.writeString(folder.resolve("tokenizer.json"), "{}");
        for (Path tokenizer : new Path[] {broken, folder.resolve("none.json")}) {
            assertThatThrownBy(() -> TokenData.read(file, Optional.of(tokenizer), OptionalInt.empty()))
                    .isInstanceOf(UserException.class)
                    .hasMessageContaining("tokenizer")
                    .hasMessageNotContaining("\n");
        }
    }
}
