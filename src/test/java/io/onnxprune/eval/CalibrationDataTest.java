// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.onnxprune.RecordedLog;
import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.eval.CalibrationData.Source;
import io.onnxprune.eval.DataRequest.WeightedFile;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.Set;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Windows of files. Each test row starts with its own number, so that rows can be distinguished. */
@Tag("ort")
class CalibrationDataTest {
    private static final Path MODEL = TestModels.file("stories-llama");
    private static final Path TOKENIZER = Path.of("../shared/data/stories/tokenizer.json");
    private static CausalLm lm;

    @TempDir
    private Path folder;

    private final RecordedLog log = new RecordedLog();

    @BeforeAll
    static void open() {
        lm = CausalLm.open(TestModels.runtime(), MODEL);
    }

    @AfterAll
    static void close() {
        lm.close();
    }

    /** A data request that is built step by step. */
    private final class Request {
        private final List<WeightedFile> files = new ArrayList<>();
        private Optional<Path> evaluation = Optional.empty();
        private OptionalInt samples = OptionalInt.empty();
        private OptionalInt length = OptionalInt.empty();
        private long seed;

        Request file(Path file, double weight) {
            files.add(new WeightedFile(file, weight));
            return this;
        }

        Request evaluation(Path file) {
            evaluation = Optional.of(file);
            return this;
        }

        Request samples(int count) {
            samples = OptionalInt.of(count);
            return this;
        }

        Request length(int tokens) {
            length = OptionalInt.of(tokens);
            return this;
        }

        Request seed(long value) {
            seed = value;
            return this;
        }

        CalibrationData resolve() {
            DataRequest request = new DataRequest(
                    files,
                    false,
                    evaluation,
                    Optional.empty(),
                    samples,
                    length,
                    DataRequest.USUAL_LENGTH,
                    OptionalLong.empty(),
                    true,
                    seed);
            return CalibrationData.resolve(lm, MODEL, request, folder, log);
        }

        void isRejected(String... parts) {
            assertThatThrownBy(this::resolve)
                    .isInstanceOf(UserException.class)
                    .hasMessageContainingAll(parts)
                    .hasMessageNotContaining("\n");
        }
    }

    private Request from(Path file) {
        return new Request().file(file, 1);
    }

    /** Rows {@code first, first + 1, ...}, each its number and then ones. */
    private Path rows(String name, int first, int count, int length) throws IOException {
        List<String> lines = IntStream.range(first, first + count)
                .mapToObj(i -> "{\"input_ids\":[" + i + ",1".repeat(length - 1) + "]}")
                .toList();
        return Files.write(folder.resolve(name), lines);
    }

    private static List<Integer> numbers(List<long[]> rows) {
        return rows.stream().map(row -> (int) row[0]).toList();
    }

    @Test
    void theRequestedNumberOfRowsIsTakenInOrder() throws IOException {
        Path eval = rows("eval.jsonl", 100, 3, 12);
        CalibrationData data =
                from(rows("a.jsonl", 0, 20, 8)).samples(20).evaluation(eval).resolve();

        assertThat(numbers(data.rows()))
                .isEqualTo(IntStream.range(0, 20).boxed().toList());
        assertThat(numbers(data.heldOut())).containsExactly(100, 101, 102);
        assertThat(data.length()).isEqualTo(8);
        assertThat(data.sources())
                .containsExactly(
                        new Source(folder.resolve("a.jsonl").toString(), 20, 0), new Source(eval.toString(), 0, 3));
        assertThat(data.describe("perplexity"))
                .isEqualTo("calibration: 20 windows of 8 tokens from a.jsonl (160 tokens); perplexity on 3 rows from"
                        + " eval.jsonl (33 predictions)");
        assertThat(log.lines()).isEmpty();
    }

    @Test
    void windowsAreChosenBySeedAndTheOthersAreHeldOut() throws IOException {
        Path file = rows("a.jsonl", 0, 200, 8);
        CalibrationData data = from(file).samples(16).resolve();
        List<Integer> chosen = numbers(data.rows());

        assertThat(chosen)
                .hasSize(16)
                .isSorted()
                .doesNotHaveDuplicates()
                .doesNotContainAnyElementsOf(numbers(data.heldOut()));
        assertThat(data.heldOut()).hasSize(64);
        assertThat(chosen).isNotEqualTo(IntStream.range(0, 16).boxed().toList());
        assertThat(numbers(from(file).samples(16).resolve().rows())).isEqualTo(chosen);
        assertThat(numbers(from(file).samples(16).seed(1).resolve().rows())).isNotEqualTo(chosen);
        assertThat(data.describe("perplexity"))
                .isEqualTo("calibration: 16 windows of 8 tokens from a.jsonl (128 tokens); perplexity on 64 held-out"
                        + " windows (448 predictions)");
    }

    @Test
    void aTenthIsHeldOutWhenNoWindowRemains() throws IOException {
        CalibrationData data = from(rows("a.jsonl", 0, 40, 8)).resolve();

        assertThat(data.rows()).hasSize(36);
        assertThat(data.heldOut()).hasSize(4);
        assertThat(log.lines())
                .containsExactly("info: 4 of the 40 windows of " + folder.resolve("a.jsonl")
                        + " are held out to measure perplexity on; --eval FILE gives other data for that");
    }

    @Test
    void fewerWindowsThanRequestedGiveAWarning() throws IOException {
        Path eval = rows("eval.jsonl", 100, 3, 8);
        CalibrationData data =
                from(rows("a.jsonl", 0, 5, 8)).samples(10).evaluation(eval).resolve();

        assertThat(numbers(data.rows())).containsExactly(0, 1, 2, 3, 4);
        assertThat(log.lines())
                .singleElement()
                .satisfies(
                        line -> assertThat(line)
                                .startsWith("warning: ")
                                .contains(
                                        "has 5 windows of 8 tokens, fewer than the 10 that are its share; all of them are used"));
    }

    @Test
    void weightsAreSharesOfTheSamples() throws IOException {
        CalibrationData data = new Request()
                .file(rows("a.jsonl", 0, 100, 8), 1)
                .file(rows("b.jsonl", 200, 100, 8), 3)
                .samples(41)
                .resolve();

        assertThat(numbers(data.rows()).stream().filter(i -> i >= 200)).hasSize(31);
        assertThat(data.rows()).hasSize(41);
        assertThat(numbers(data.heldOut()).stream().filter(i -> i >= 200)).hasSize(48);
        assertThat(data.heldOut()).hasSize(64);
        assertThat(data.describe("perplexity"))
                .contains("41 windows of 8 tokens from a.jsonl (10) and b.jsonl (31) (328 tokens)");
    }

    @Test
    void rowsAreCutIntoWindowsOfTheRequestedLength() throws IOException {
        CalibrationData data = from(rows("a.jsonl", 0, 10, 20)).length(6).resolve();
        assertThat(data.rows()).hasSize(27).allMatch(row -> row.length == 6);
        assertThat(data.heldOut()).hasSize(3).allMatch(row -> row.length == 6);

        Path mixed = folder.resolve("mixed.jsonl");
        Files.writeString(
                mixed, Files.readString(rows("b.jsonl", 0, 4, 8)) + Files.readString(rows("c.jsonl", 4, 3, 12)));
        assertThat(from(mixed).length(10).resolve().length()).isEqualTo(10);
        assertThat(log.lines())
                .anyMatch(line -> line.startsWith("warning: 4 of 7 rows of ") && line.contains("fewer than 10 tokens"));
    }

    @Test
    void rowsOfOtherLengthsAreRejected() throws IOException {
        Path mixed = folder.resolve("mixed.jsonl");
        Path eight = rows("a.jsonl", 0, 4, 8);
        Files.writeString(mixed, Files.readString(eight) + Files.readString(rows("b.jsonl", 4, 4, 12)));

        from(mixed).isRejected("mixed.jsonl have 8 to 12 tokens", "give --seq-len N to cut them into windows");
        from(eight)
                .file(folder.resolve("b.jsonl"), 1)
                .isRejected("b.jsonl have 12 tokens, and those of another file 8", "give --seq-len N");
        from(eight).length(16).isRejected("a.jsonl have 8 tokens, fewer than a window of 16; give --seq-len 8 or less");
    }

    @Test
    void tooLittleDataIsRejected() throws IOException {
        Path one = rows("a.jsonl", 0, 1, 8);

        from(one).isRejected("a.jsonl has only 1 window of 8 tokens", "give more data", "--eval FILE");
        from(rows("b.jsonl", 0, 3, 1)).isRejected("no row of", "b.jsonl has 2 tokens");
        Path none = Files.writeString(folder.resolve("c.jsonl"), "{\"input_ids\":[]}\n");
        from(none).length(4).isRejected("no row of", "c.jsonl has 2 tokens");
        assertThat(from(one).evaluation(one).resolve().rows()).hasSize(1);
    }

    @Test
    void rowsBeyondTheContextAreRejected() throws IOException {
        String context = "more than the model's context of 256 (max_position_embeddings in config.json)";
        Path good = rows("a.jsonl", 0, 4, 8);
        Path beyond = rows("b.jsonl", 0, 4, 300);

        from(good)
                .length(257)
                .isRejected("windows of --seq-len 257 have 257 tokens", context, "give --seq-len 256 or less");
        assertThat(from(beyond).resolve().length()).isEqualTo(256);
        from(good).evaluation(beyond).isRejected("rows of ", "b.jsonl have 300 tokens", context);
        assertThat(from(beyond).length(256).resolve().length()).isEqualTo(256);
    }

    @Test
    void unknownTokensAreRejected() throws IOException {
        Path good = rows("a.jsonl", 0, 4, 8);
        Path foreign = rows("b.jsonl", 510, 4, 8);

        from(foreign).isRejected("token id 512", "b.jsonl", "vocabulary of 512");
        from(good).evaluation(foreign).isRejected("token id 512", "b.jsonl", "vocabulary of 512");
    }

    @Test
    void textIsPackedIntoWindows() throws IOException {
        assumeTrue(Files.exists(TOKENIZER), TOKENIZER + " is absent");
        Path text = Files.writeString(folder.resolve("a.txt"), "Once upon a time. ".repeat(400));
        Path brief = Files.writeString(folder.resolve("b.txt"), "Once upon a time. ".repeat(3));
        DataRequest request = new DataRequest(
                List.of(new WeightedFile(text, 1)),
                false,
                Optional.empty(),
                Optional.of(TOKENIZER),
                OptionalInt.empty(),
                OptionalInt.empty(),
                DataRequest.USUAL_LENGTH,
                OptionalLong.empty(),
                false,
                0);
        CalibrationData data = CalibrationData.resolve(lm, MODEL, request, folder, log);

        Set<Integer> lengths = new HashSet<>();
        Stream.concat(data.rows().stream(), data.heldOut().stream()).forEach(row -> lengths.add(row.length));
        assertThat(lengths).containsExactly(256);
        assertThat(data.rows().size() + data.heldOut().size()).isGreaterThan(5);
        assertThat(data.describe("perplexity"))
                .startsWith("perplexity on 1 held-out window from a.txt (255 predictions)");
        assertThatThrownBy(() -> CalibrationData.resolve(
                        lm,
                        MODEL,
                        new DataRequest(
                                List.of(new WeightedFile(brief, 1)),
                                false,
                                Optional.empty(),
                                Optional.of(TOKENIZER),
                                OptionalInt.empty(),
                                OptionalInt.empty(),
                                DataRequest.USUAL_LENGTH,
                                OptionalLong.empty(),
                                true,
                                0),
                        folder,
                        Log.NONE))
                .isInstanceOf(UserException.class)
                .hasMessageContainingAll("the text of ", "b.txt has ", "fewer than a window of 256; give more text");
    }
}
