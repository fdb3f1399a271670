// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.RuntimeOptions;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.OptionalInt;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("ort")
class EvaluatorTest {
    private static final OnnxRuntime RUNTIME = OnnxRuntime.open(RuntimeOptions.cpu());
    private static final Path MODELS = Path.of("testmodels");
    private static final Path DATA = MODELS.resolve("tokens.jsonl");

    @Test
    void perplexityAndSpeed() {
        EvalOptions options = new EvalOptions(
                DATA,
                Optional.empty(),
                Optional.empty(),
                SideFiles.NONE,
                Windows.of(OptionalInt.of(32)),
                OptionalInt.of(16));
        Evaluation found = Evaluator.evaluate(RUNTIME, MODELS.resolve("stories-llama/model.onnx"), options, Log.NONE);
        assertThat(found.rows()).isEqualTo(32);
        assertThat(found.tokens()).isEqualTo(32 * 31);
        assertThat(found.vocabulary()).isEqualTo(512);
        assertThat(found.perplexity()).isEqualTo(Math.exp(found.nll())).isBetween(3.0, 12.0);
        assertThat(found.prefillTokensPerSecond().orElseThrow()).isPositive();
        assertThat(found.decodeTokensPerSecond().orElseThrow()).isPositive();
    }

    /** Calibration statistics are computed from these values. */
    @ParameterizedTest
    @ValueSource(strings = {"stories-llama", "stories-llama-e-fp32", "llama-g16-e-fp16", "gpt-neox-d"})
    void oneThreadGivesBitwiseEqualResults(String name) {
        OnnxRuntime runtime = OnnxRuntime.open(RuntimeOptions.cpu(1));
        long[][] rows = TokenData.read(DATA, Optional.empty(), OptionalInt.empty()).rows().stream()
                .map(row -> Arrays.stream(row).map(token -> token % 320).toArray())
                .toArray(long[][]::new);
        List<HostTensor> runs = new ArrayList<>();
        for (int run = 0; run < 2; run++) {
            try (CausalLm model = CausalLm.open(runtime, MODELS.resolve(name).resolve("model.onnx"))) {
                runs.add(model.logits(rows));
            }
        }
        assertThat(runs.get(0).shape()).startsWith(rows.length, rows[0].length);
        assertThat(runs.get(0).toFloats()).doesNotContain(Float.NaN);
        assertThat(runs.get(0).bytes().mismatch(runs.get(1).bytes())).isEqualTo(-1);
    }

    @Test
    void thereIsNoDecodingSpeedWithoutACache() {
        try (CausalLm model = CausalLm.open(RUNTIME, MODELS.resolve("opt-c/model.onnx"))) {
            assertThat(Latency.measure(model, 8, Log.NONE).decodeTokensPerSecond())
                    .isEmpty();
        }
    }

    @Test
    void dataOutsideTheVocabularyIsRejected() {
        assertThatThrownBy(() ->
                        Evaluator.evaluate(RUNTIME, MODELS.resolve("opt-c/model.onnx"), EvalOptions.of(DATA), Log.NONE))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("vocabulary of 320")
                .hasMessageContaining("tokenizer does not match");
    }

    @Test
    void aFileThatIsNotADecoderIsRejected() {
        assertThatThrownBy(
                        () -> Evaluator.evaluate(RUNTIME, MODELS.resolve("README.md"), EvalOptions.of(DATA), Log.NONE))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("README.md");
    }
}
