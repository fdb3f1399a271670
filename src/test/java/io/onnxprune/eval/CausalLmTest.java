// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.onnxprune.RecordedLog;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.RuntimeOptions;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.OptionalInt;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("ort")
@Tag("slow")
class CausalLmTest {
    private static final OnnxRuntime RUNTIME = OnnxRuntime.open(RuntimeOptions.cpu());
    private static final Path MODELS = Path.of("testmodels");
    private static final Path SHARED = Path.of("../shared/models");
    private static final Path SHARED_DATA = Path.of("../shared/data/stories/eval.jsonl");

    private static CausalLm open(Path folder) {
        return CausalLm.open(RUNTIME, folder.resolve("model.onnx"));
    }

    private static List<long[]> rows(long vocabulary) {
        List<long[]> rows = TokenData.read(MODELS.resolve("tokens.jsonl"), Optional.empty(), OptionalInt.of(24))
                .rows();
        return rows.stream()
                .map(row -> Arrays.stream(row).map(id -> id % vocabulary).toArray())
                .toList();
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "bloom-d",
                "falcon-mqa-d",
                "gemma2-d",
                "glm-d",
                "gpt-neox-d",
                "gpt2-cb",
                "gpt2-g-merged",
                "llama-g16-e-fp32",
                "llama-g16-e-int4",
                "llama-gqa-b",
                "llama-gqa-d",
                "llama-mha-b23",
                "llama-mha-f-d-gpt2",
                "phi3-d",
                "qwen2-g16-e-fp32",
                "qwen3-moe-d",
                "stories-llama",
                "stories-llama-e-fp32"
            })
    void decodingWithTheCacheGivesTheLogitsOfTheWholeRow(String name) {
        assertThat(cacheError(name)).isLessThan(1e-4);
    }

    /** Float16 itself has only three significant digits. */
    @ParameterizedTest
    @ValueSource(strings = {"llama-g16-e-fp16", "llama-mha-e-mha16"})
    void halfPrecisionCachesAreCarriedToo(String name) {
        assertThat(cacheError(name)).isLessThan(5e-3);
    }

    /** The largest difference of cached and uncached logits, relative to the largest logit. */
    private static double cacheError(String name) {
        try (CausalLm model = open(MODELS.resolve(name))) {
            int vocabulary = (int) model.vocabulary();
            long[] row = rows(vocabulary).get(0);
            float[] uncached = model.logits(new long[][] {row}).toFloats();
            double largest = 0;
            double error = 0;
            CausalLm.Step step = model.prefill(new long[][] {Arrays.copyOf(row, 10)});
            for (int position = 9; position < row.length - 1; position++) {
                assertThat(step.length()).isEqualTo(position + 1);
                float[] cached = step.logits().toFloats();
                for (int i = 0; i < vocabulary; i++) {
                    float expected = uncached[position * vocabulary + i];
                    largest = Math.max(largest, Math.abs(expected));
                    error = Math.max(error, Math.abs(expected - cached[cached.length - vocabulary + i]));
                }
                step = model.decode(step, new long[][] {{row[position + 1]}});
            }
            step.close();
            return error / largest;
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"mixtral-a", "opt-c", "opt-f-a-bert"})
    void modelsWithoutACacheGiveLogits(String name) {
        try (CausalLm model = open(MODELS.resolve(name))) {
            assertThat(model.hasCache()).isFalse();
            assertThat(model.logits(new long[][] {{1, 2, 3}}).shape()).containsExactly(1, 3, 320);
        }
    }

    @Test
    void aModelThatTakesOneRowOnlyGetsRowsOneByOne() {
        try (CausalLm model = open(MODELS.resolve("llama-mha-b23"))) {
            long[][] batch = rows(320).subList(0, 3).toArray(long[][]::new);
            float[] together = model.logits(batch).toFloats();
            float[] last = model.logits(new long[][] {batch[2]}).toFloats();
            assertThat(Arrays.copyOfRange(together, 2 * last.length, 3 * last.length))
                    .containsExactly(last);
        }
    }

    @Test
    void aRowThatCannotRunIsReportedWithTheRuntimesReason() {
        try (CausalLm model = open(MODELS.resolve("stories-llama"))) {
            assertThatThrownBy(() -> model.logits(new long[][] {{1, 99999}, {1, 2}}))
                    .isInstanceOf(UserException.class)
                    .hasMessageContaining("99999")
                    .hasMessageNotContaining("\n");
        }
    }

    @Test
    void bothExportsOfTheTrainedModelHaveTheSamePerplexity() {
        List<long[]> rows = rows(512);
        double[] found = new double[2];
        try (CausalLm plain = open(MODELS.resolve("stories-llama"));
                CausalLm fused = open(MODELS.resolve("stories-llama-e-fp32"))) {
            found[0] = Perplexity.measure(plain, rows, Log.NONE).perplexity();
            found[1] = Perplexity.measure(fused, rows, Log.NONE).perplexity();
        }
        assertThat(found[0]).isBetween(4.0, 12.0).isCloseTo(found[1], within(1e-3));
    }

    /** Compared with the perplexities of PyTorch. */
    @ParameterizedTest
    @CsvSource({"stories-llama, 4.3855", "stories-glm, 4.9354", "stories-opt, 5.1106", "stories260k-d, 3.6294"})
    void perplexityOfTheTrainedModels(String name, double expected) {
        assertThat(perplexity(name, 256) / expected).isCloseTo(1, within(1e-3));
    }

    @ParameterizedTest
    @CsvSource({
        "stories-llama, stories-llama-b",
        "stories-llama, stories-llama-e-fp32",
        "stories-opt, stories-opt-b",
        "stories260k-d, stories260k-a23",
        "stories260k-d, stories260k-c",
        "stories260k-d, stories260k-cb",
        "stories260k-d, stories260k-g-merged",
        "stories260k-d, stories260k-g-extmany",
        "stories260k-d, stories260k-g-fp16",
        "stories260k-d, stories260k-hd16-e-fp32",
        "stories260k-d, stories260k-hd16-e-fp16"
    })
    void everyStyleOfATrainedModelHasTheSamePerplexity(String reference, String name) {
        assertThat(perplexity(name, 16) / perplexity(reference, 16)).isCloseTo(1, within(1e-3));
    }

    private static double perplexity(String name, int count) {
        Path folder = SHARED.resolve(name);
        assumeTrue(Files.isDirectory(folder), folder + " is absent");
        List<long[]> rows = TokenData.read(SHARED_DATA, Optional.empty(), OptionalInt.empty())
                .rows()
                .subList(0, count);
        try (CausalLm model = open(folder)) {
            Perplexity found = Perplexity.measure(model, rows, Log.NONE);
            assertThat(found.tokens()).isEqualTo(count * 255L);
            return found.perplexity();
        }
    }

    /** The CPU has no kernels for bfloat16. */
    @Test
    void aModelThatDoesNotLoadUnchangedRunsInFloat32() {
        Path folder = SHARED.resolve("stories260k-g-bf16");
        assumeTrue(Files.isDirectory(folder), folder + " is absent");
        RecordedLog log = new RecordedLog();
        try (CausalLm half = CausalLm.open(RUNTIME, folder.resolve("model.onnx"), log);
                CausalLm float32 = open(SHARED.resolve("stories260k-d"))) {
            List<long[]> rows = rows(512);
            double expected = Perplexity.measure(float32, rows, Log.NONE).perplexity();
            assertThat(Perplexity.measure(half, rows, Log.NONE).perplexity() / expected)
                    .isCloseTo(1, within(0.02));
        }
        assertThat(log.lines())
                .singleElement()
                .satisfies(line -> assertThat(line)
                        .startsWith("warning: this runtime loads")
                        .contains("only in float32, which runs slower"));
    }

    @Test
    void rowsOfDifferentLengthsCountEveryPrediction() {
        try (CausalLm model = open(MODELS.resolve("stories-llama"))) {
            List<long[]> rows = List.of(new long[] {1, 403, 407}, new long[] {1, 403}, new long[] {1, 403, 407});
            Perplexity mixed = Perplexity.measure(model, rows, Log.NONE);
            Perplexity three = Perplexity.measure(model, rows.subList(0, 1), Log.NONE);
            Perplexity two = Perplexity.measure(model, rows.subList(1, 2), Log.NONE);
            assertThat(mixed.tokens()).isEqualTo(5);
            assertThat(mixed.nll()).isCloseTo((4 * three.nll() + two.nll()) / 5, within(1e-5));
        }
    }
}
