// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.onnxprune.RecordedLog;
import io.onnxprune.TestModels;
import io.onnxprune.diag.UserException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Reading and generating a model's own text. */
@Tag("ort")
class SelfDataTest {
    private static final Path TOKENIZER = Path.of("../shared/data/stories/tokenizer.json");

    @TempDir
    private Path root;

    private final RecordedLog log = new RecordedLog();
    private Path model;
    private Path work;
    private OptionalInt length = OptionalInt.of(12);
    private OptionalLong bos = OptionalLong.empty();
    private Optional<Path> evaluation = Optional.empty();
    private long seed;

    @BeforeEach
    void copyModel() throws IOException {
        work = root.resolve("work");
        copy("gpt2-cb");
    }

    /** Copies a committed model without the files beside it. */
    private void copy(String name) throws IOException {
        model = root.resolve(name + ".onnx");
        Files.copy(TestModels.file(name), model);
    }

    private CalibrationData resolve() {
        DataRequest request = new DataRequest(
                List.of(),
                true,
                evaluation,
                Optional.empty(),
                OptionalInt.of(5),
                length,
                DataRequest.USUAL_LENGTH,
                bos,
                true,
                seed);
        try (CausalLm lm = CausalLm.open(TestModels.runtime(), model)) {
            return CalibrationData.resolve(lm, model, request, work, log);
        }
    }

    private Path stored() throws IOException {
        try (Stream<Path> files = Files.list(work.resolve("self-text"))) {
            List<Path> all = files.toList();
            assertThat(all).hasSize(1);
            return all.get(0);
        }
    }

    @Test
    void rowsToCalibrateAndToMeasureOn() {
        bos = OptionalLong.of(7);
        CalibrationData data = resolve();

        assertThat(data.rows()).hasSize(5).allMatch(row -> row.length == 12 && row[0] == 7);
        assertThat(data.heldOut()).hasSize(8).allMatch(row -> row.length == 12 && row[0] == 7);
        assertThat(data.sources()).containsExactly(new CalibrationData.Source("self", 5, 8));
        assertThat(data.describe("perplexity"))
                .isEqualTo("calibration: 5 windows of 12 tokens from the model itself (60 tokens); perplexity on 8"
                        + " held-out windows (88 predictions)");
        assertThat(log.lines())
                .containsExactly("info: the model writes 13 rows of 12 tokens to calibrate on, each from" + " token 7");
    }

    @Test
    void textIsStoredForTheSameRequest() throws IOException {
        CalibrationData first = resolve();
        String text = Files.readString(stored());
        Files.writeString(stored(), text.replaceFirst("\\[\\d+,", "[319,"));
        log.lines().clear();
        CalibrationData again = resolve();

        assertThat(again.rows().get(0)[0]).isEqualTo(319);
        assertThat(again.heldOut()).containsExactlyElementsOf(first.heldOut());
        assertThat(log.lines()).anyMatch(line -> line.startsWith("info: text that the model wrote in an earlier run"));

        Files.writeString(stored(), text.substring(0, text.length() / 2));
        assertThat(resolve().rows()).containsExactlyElementsOf(first.rows());
        assertThat(stored()).hasContent(text);
    }

    @Test
    void anotherSeedOrOtherWeightsGiveOtherText() throws IOException {
        CalibrationData first = resolve();
        seed = 1;
        CalibrationData other = resolve();
        assertThat(other.rows().get(0)).isNotEqualTo(first.rows().get(0));

        seed = 0;
        byte[] changed = Files.readAllBytes(model);
        changed[changed.length / 2] ^= 1;
        Files.write(model, changed);
        resolve();
        try (Stream<Path> files = Files.list(work.resolve("self-text"))) {
            assertThat(files).hasSize(3);
        }
    }

    @Test
    void noHeldOutTextIsWrittenWhenEvaluationDataIsGiven() throws IOException {
        evaluation = Optional.of(Files.writeString(root.resolve("eval.jsonl"), "{\"input_ids\":[1,2,3]}\n"));
        CalibrationData data = resolve();

        assertThat(data.rows()).hasSize(5);
        assertThat(data.heldOut()).containsExactly(new long[] {1, 2, 3});
    }

    @Test
    void withoutAConfigurationRowsStartAtRandom() throws IOException {
        CalibrationData data = resolve();
        assertThat(data.rows().stream().map(row -> row[0]).distinct()).hasSizeGreaterThan(2);
        assertThat(log.lines())
                .anyMatch(line -> line.startsWith("warning: no file beside the model names the BOS token")
                        && line.endsWith("--bos N sets it"));
    }

    @Test
    void theTokenizerNamesTheBosTokenToo() throws IOException {
        assumeTrue(Files.exists(TOKENIZER), TOKENIZER + " is absent");
        Files.copy(TOKENIZER, root.resolve("tokenizer.json"));
        assertThat(resolve().rows()).allMatch(row -> row[0] == 1);
    }

    @Test
    void rowsAreAsLongAsTheModelRuns() {
        length = OptionalInt.empty();
        assertThat(resolve().length()).isEqualTo(128);
        assertThat(log.lines()).contains("info: the model runs on rows of up to 128 tokens, so its text is as long");

        length = OptionalInt.of(200);
        assertThatThrownBy(this::resolve)
                .isInstanceOf(UserException.class)
                .hasMessageStartingWith(
                        "the model runs on rows of up to 128 tokens, not of 200; give --seq-len 128 or less");
    }

    @Test
    void aModelWithoutACacheIsSlow() throws IOException {
        copy("opt-c");
        assertThat(resolve().rows()).hasSize(5);
        assertThat(log.lines()).anyMatch(line -> line.startsWith("warning: the model has no cache"));
    }

    @Test
    void badRequestsAreRejected() throws IOException {
        bos = OptionalLong.of(320);
        assertThatThrownBy(this::resolve)
                .isInstanceOf(UserException.class)
                .hasMessage("--bos 320 is outside the model's vocabulary of 320");
        bos = OptionalLong.of(0);
        Files.writeString(work, "a file");
        assertThatThrownBy(this::resolve)
                .isInstanceOf(UserException.class)
                .hasMessageContaining("cannot be kept in ")
                .hasMessageEndingWith("name another folder with --work-dir DIR");
    }
}
