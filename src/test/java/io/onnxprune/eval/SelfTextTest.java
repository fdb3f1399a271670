// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.RecordedLog;
import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graphs;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import io.onnxprune.runtime.Session;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.Set;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("ort")
class SelfTextTest {
    private static final long MEMORY = 1 << 20;

    /** A model whose logits depend only on the last token: row {@code t} of a table after token {@code t}. */
    private static Model table(float[]... logits) {
        float[] all = new float[logits.length * logits[0].length];
        for (int i = 0; i < logits.length; i++) {
            System.arraycopy(logits[i], 0, all, i * logits[0].length, logits[0].length);
        }
        return Graphs.model(Graphs.graph(
                List.of(Graphs.value("input_ids", DType.INT64, "batch", "sequence")),
                List.of(Graphs.floats("logits", "batch", "sequence", logits[0].length)),
                Map.of("table", Tensor.ofFloats(DType.FLOAT, new long[] {logits.length, logits[0].length}, all)),
                Node.of("", "Gather", List.of("table", "input_ids"), List.of("logits"), Map.of())));
    }

    private static List<long[]> write(Model model, OptionalLong bos, Set<Long> eos, int count, int length) {
        try (Session session = TestModels.runtime().open(model, true)) {
            return new SelfText(CausalLm.of(session, model.graph()), bos, eos)
                    .write(count, length, 5, MEMORY, Log.NONE);
        }
    }

    @Test
    void tokensFollowTheModelsDistribution() {
        float[] logits = {(float) Math.log(0.5), (float) Math.log(0.3), (float) Math.log(0.15), (float) Math.log(0.05)};
        List<long[]> rows = write(table(logits, logits, logits, logits), OptionalLong.of(3), Set.of(), 500, 21);

        double[] share = new double[4];
        rows.forEach(row -> {
            assertThat(row[0]).isEqualTo(3);
            for (int i = 1; i < row.length; i++) {
                share[(int) row[i]] += 1e-4;
            }
        });
        // Five standard deviations of 10,000 draws.
        assertThat(share[0]).isCloseTo(0.5, within(0.025));
        assertThat(share[1]).isCloseTo(0.3, within(0.023));
        assertThat(share[2]).isCloseTo(0.15, within(0.018));
        assertThat(share[3]).isCloseTo(0.05, within(0.011));
    }

    @Test
    void aRowContinuesWithBosAfterEos() {
        float no = Float.NEGATIVE_INFINITY;
        // Token 1 is BOS and 2 is EOS. 0 follows 1, 2 follows 0, and after 2 the model itself would always give 0.
        Model model = table(new float[] {no, no, 0}, new float[] {0, no, no}, new float[] {0, no, no});

        assertThat(write(model, OptionalLong.of(1), Set.of(2L), 2, 8))
                .containsExactly(new long[] {1, 0, 2, 1, 0, 2, 1, 0}, new long[] {1, 0, 2, 1, 0, 2, 1, 0});
        assertThat(write(model, OptionalLong.of(1), Set.of(), 1, 6)).containsExactly(new long[] {1, 0, 2, 0, 2, 0});
        // A token that is both BOS and EOS is not repeated.
        assertThat(write(model, OptionalLong.of(2), Set.of(2L), 1, 6)).containsExactly(new long[] {2, 0, 2, 0, 2, 0});
    }

    @Test
    void withoutBosRowsStartAtRandom() {
        List<long[]> rows = write(
                table(new float[4], new float[4], new float[4], new float[4]), OptionalLong.empty(), Set.of(), 40, 2);
        assertThat(rows.stream().map(row -> row[0]).distinct()).containsExactlyInAnyOrder(0L, 1L, 2L, 3L);
    }

    @Test
    void nonFiniteLogitsAreRejected() {
        Model model = table(new float[] {0, Float.NaN}, new float[] {0, 0});
        assertThatThrownBy(() -> write(model, OptionalLong.of(0), Set.of(), 2, 4))
                .isInstanceOf(UserException.class)
                .hasMessageContaining(
                        "the model cannot write text: its logits are not finite numbers at token 1 of a row (beginning 0)");
    }

    /** Perplexity cannot be computed, so no text is generated. */
    @Test
    void logitsOfOnlyTheLastTokenAreRejected() {
        Model full = table(new float[2], new float[2]);
        Node gather = Node.of("", "Gather", List.of("table", "input_ids"), List.of("all"), Map.of());
        Node last = Node.of("", "Slice", List.of("all", "minus", "end", "one"), List.of("logits"), Map.of());
        Map<String, Tensor> initializers = new HashMap<>(full.graph().initializers());
        initializers.put("minus", Graphs.longs(-1));
        initializers.put("end", Graphs.longs(Integer.MAX_VALUE));
        initializers.put("one", Graphs.longs(1));
        Model lastOnly =
                full.withGraph(full.graph().withInitializers(initializers).withNodes(List.of(gather, last)));
        DataRequest request = new DataRequest(
                List.of(),
                true,
                Optional.empty(),
                Optional.empty(),
                OptionalInt.empty(),
                OptionalInt.empty(),
                DataRequest.USUAL_LENGTH,
                OptionalLong.empty(),
                true,
                0);
        try (Session session = TestModels.runtime().open(lastOnly, false)) {
            Path nowhere = Path.of("nowhere");
            assertThatThrownBy(() -> CalibrationData.resolve(
                            CausalLm.of(session, lastOnly.graph()), nowhere, request, nowhere, Log.NONE))
                    .isInstanceOf(UserException.class)
                    .hasMessageContaining(
                            "logits for 1 of 2 positions, so its loss and perplexity cannot be computed; export it with logits for all");
        }
    }

    /** Generation with the cache gives the same tokens as runs over complete prefixes, for all export styles. */
    @ParameterizedTest
    @ValueSource(strings = {"stories-llama", "stories-llama-e-fp32", "gpt2-g-merged", "llama-mha-b23", "glm-d"})
    void everyTokenIsDrawnFromTheLogitsOfItsPrefix(String name) {
        try (CausalLm model = CausalLm.open(TestModels.runtime(), TestModels.file(name))) {
            SelfText text = new SelfText(model, OptionalLong.of(1), Set.of(2L));
            List<long[]> rows = text.write(5, 24, 9, MEMORY, Log.NONE);
            assertThat(text.write(5, 24, 9, MEMORY, Log.NONE)).containsExactlyElementsOf(rows);
            assertThat(text.write(5, 24, 10, MEMORY, Log.NONE).get(0)).isNotEqualTo(rows.get(0));
            assertThat(text.write(2, 24, 9, MEMORY, Log.NONE)).containsExactly(rows.get(0), rows.get(1));

            // The random stream of the last row, sampled again from logits without a cache.
            SplittableRandom seeds = new SplittableRandom(9);
            SplittableRandom random = null;
            for (int i = 0; i < 5; i++) {
                random = seeds.split();
            }
            long[] row = rows.get(4);
            int vocabulary = (int) model.vocabulary();
            float[] logits = model.logits(new long[][] {row}).toFloats();
            for (int i = 1; i < row.length; i++) {
                double uniform = random.nextDouble();
                float[] last = Arrays.copyOfRange(logits, (i - 1) * vocabulary, i * vocabulary);
                assertThat(row[i]).isEqualTo(row[i - 1] == 2 ? 1 : TokenSampler.draw(last, uniform));
            }
        }
    }

    @Test
    void aTrainedModelHasLowPerplexityOnItsOwnText() {
        RecordedLog log = new RecordedLog();
        try (CausalLm model = CausalLm.open(TestModels.runtime(), TestModels.file("stories-llama"))) {
            List<long[]> rows = new SelfText(model, OptionalLong.of(1), Set.of(2L)).write(20, 128, 0, MEMORY * 16, log);
            assertThat(log.steps()).isEqualTo(20 * 127);
            assertThat(Perplexity.measure(model, rows, Log.NONE).perplexity()).isBetween(3.5, 6.5);
        }
    }
}
