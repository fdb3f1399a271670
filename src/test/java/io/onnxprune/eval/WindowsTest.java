// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UsageException;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.RuntimeOptions;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.stream.LongStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

@Tag("ort")
class WindowsTest {
    private static final Path MODEL = Path.of("testmodels/stories-llama/model.onnx");

    @TempDir
    private Path folder;

    /** Every token is predicted once, from the beginning of the first window that it is in. */
    @ParameterizedTest
    @CsvSource({"16, 16", "16, 4", "16, 5", "16, 15", "16, 1", "3, 2"})
    void asOneTokenAtATime(int length, int stride) throws IOException {
        long[] row = LongStream.range(0, 37).map(i -> (i * i * 31 + 7) % 500).toArray();
        Path data = Files.writeString(folder.resolve("row.jsonl"), "{\"input_ids\":" + Arrays.toString(row) + "}\n");
        Windows windows = new Windows(OptionalInt.of(length), OptionalInt.of(stride));
        EvalOptions options =
                new EvalOptions(data, Optional.empty(), Optional.empty(), SideFiles.NONE, windows, OptionalInt.empty());
        OnnxRuntime runtime = OnnxRuntime.open(RuntimeOptions.cpu());

        Evaluation found = Evaluator.evaluate(runtime, MODEL, options, Log.NONE);

        int end = length + (row.length - length) / stride * stride;
        double sum = 0;
        int count = 0;
        try (CausalLm model = CausalLm.open(runtime, MODEL)) {
            for (int next = 1; next < end; next++) {
                int start = next < length ? 0 : (next - length + stride) / stride * stride;
                if (next > start) {
                    HostTensor logits = model.logits(new long[][] {Arrays.copyOfRange(row, start, next)});
                    sum += surprise(logits, (int) row[next]);
                    count++;
                }
            }
        }
        assertThat(found.tokens()).isEqualTo(count);
        assertThat(found.nll()).isCloseTo(sum / count, within(1e-5));
    }

    private static double surprise(HostTensor logits, int target) {
        int vocabulary = (int) logits.shape()[2];
        float[] all = logits.toFloats();
        int offset = all.length - vocabulary;
        double sum = 0;
        for (int i = 0; i < vocabulary; i++) {
            sum += Math.exp(all[offset + i]);
        }
        return Math.log(sum) - all[offset + target];
    }

    @Test
    void withoutAStrideWindowsAreApart() {
        long[] row = LongStream.range(0, 10).toArray();
        assertThat(cut(row, OptionalInt.of(4), OptionalInt.empty()))
                .containsExactly("[0, 1, 2, 3] from 1", "[4, 5, 6, 7] from 1");
        assertThat(cut(row, OptionalInt.of(4), OptionalInt.of(4)))
                .isEqualTo(cut(row, OptionalInt.of(4), OptionalInt.empty()));
        assertThat(cut(row, OptionalInt.of(4), OptionalInt.of(3)))
                .containsExactly("[0, 1, 2, 3] from 1", "[3, 4, 5, 6] from 1", "[6, 7, 8, 9] from 1");
        assertThat(cut(row, OptionalInt.of(4), OptionalInt.of(1))).hasSize(7).contains("[6, 7, 8, 9] from 3");
        assertThat(cut(row, OptionalInt.of(12), OptionalInt.of(1))).hasSize(1);
    }

    private static List<String> cut(long[] row, OptionalInt length, OptionalInt stride) {
        List<Example> found = new ArrayList<>();
        new Windows(length, stride).cut(row, 5, found);
        return found.stream()
                .map(each -> Arrays.toString(each.tokens()) + " from " + each.first())
                .toList();
    }

    @Test
    void aTokenInNoWindowIsRefused() {
        assertThatThrownBy(() -> new Windows(OptionalInt.of(8), OptionalInt.of(9)))
                .isInstanceOf(UsageException.class)
                .hasMessage("--stride takes 1 to 8, the tokens of a window, not 9");
        assertThatThrownBy(() -> new Windows(OptionalInt.of(8), OptionalInt.of(0)))
                .hasMessageContaining("not 0");
        assertThatThrownBy(() -> new Windows(OptionalInt.empty(), OptionalInt.of(4)))
                .hasMessage("--stride is for windows of --seq-len N, which was not given");
    }
}
