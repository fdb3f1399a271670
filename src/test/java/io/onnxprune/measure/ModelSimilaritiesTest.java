// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.measure;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.TestModels;
import io.onnxprune.calibrate.CalibrationOptions;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Structure;
import io.onnxprune.plan.BlockInfluence;
import io.onnxprune.plan.BlockInfluence.Span;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.plan.Scores;
import io.onnxprune.rewrite.PrunedState;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

@Tag("ort")
class ModelSimilaritiesTest {
    @TempDir
    private Path folder;

    private BlockInfluence.Similarities of(PrunedState state) {
        Random random = new Random(8);
        List<long[]> rows = IntStream.range(0, 3)
                .mapToObj(row -> random.longs(12, 1, 500).toArray())
                .toList();
        CalibrationOptions options = new CalibrationOptions(CalibrationOptions.DEFAULT_MEMORY, folder, false);
        return new ModelSimilarities(state, rows, TestModels.runtime(), options, Log.NONE);
    }

    private static PrunedState dense(Structure structure) {
        return PrunedState.whole(structure, Plan.keepAll(""));
    }

    private static List<Span> spans(int... firstAndLast) {
        List<Span> spans = new ArrayList<>();
        for (int i = 0; i < firstAndLast.length; i += 2) {
            spans.add(new Span(firstAndLast[i], firstAndLast[i + 1]));
        }
        return spans;
    }

    /** One export has plain additions. The other export of the same model has fused ones, the last without its sum. */
    @Test
    void fusedAdditionsAreSeenThrough() {
        List<Span> spans = spans(0, 0, 1, 1, 4, 5, 11, 11, 10, 11, 0, 11);
        Map<Span, Double> plain =
                of(dense(TestModels.structure("stories-llama"))).measure(spans);
        Map<Span, Double> fused =
                of(dense(TestModels.structure("stories-llama-e-fp32"))).measure(spans);

        assertThat(plain).hasSameSizeAs(spans);
        assertThat(plain.values()).allMatch(cosine -> cosine > 0 && cosine < 0.999);
        spans.forEach(span -> assertThat(fused.get(span)).as(span.toString()).isCloseTo(plain.get(span), within(1e-5)));
    }

    @Test
    void prunedBlocksAreSkipped() {
        for (String name : List.of("stories-llama", "stories-llama-e-fp32")) {
            Structure structure = TestModels.structure(name);
            // Blocks 0, 3 and 11 are pruned, so blocks 1, 2, 4, ... become 0, 1, 2, ...
            Plan plan = new Plan("", Map.of(), null, new int[] {1, 2, 4, 5, 6, 7, 8, 9, 10});
            PrunedState state = PrunedState.of(structure, plan, Map.of());
            Map<Span, Double> found = of(state).measure(spans(0, 1, 2, 3, 4, 4, 10, 11, 3, 3));
            Map<Span, Double> expected =
                    of(dense(TestModels.structure(state.model()))).measure(spans(0, 0, 1, 1, 2, 2, 8, 8));

            assertThat(found).containsOnlyKeys(spans(0, 1, 2, 3, 4, 4, 10, 11));
            assertThat(found.values())
                    .usingElementComparator((a, b) -> Math.abs(a - b) < 1e-6 ? 0 : 1)
                    .containsExactlyElementsOf(expected.values());
        }
    }

    @Test
    void layersAndBlocksAreScoredByTheirBlockInfluence() {
        Structure structure = TestModels.structure("llama-gqa-d");
        List<Span> asked = new ArrayList<>();
        BlockInfluence.Similarities similarities = (Collection<Span> spans) -> {
            asked.addAll(spans);
            Map<Span, Double> measured = new LinkedHashMap<>();
            spans.forEach(span -> measured.put(span, 1 - (span.first() + 1) / 10.0));
            return measured;
        };
        Scores layers = new BlockInfluence(PruneSet.parse(List.of("layers")), similarities).score(structure, Log.NONE);
        assertThat(asked).containsExactlyElementsOf(spans(0, 1, 2, 3, 4, 5));
        assertThat(layers.layers()).containsExactly(new double[] {0.1, 0.3, 0.5}, within(1e-12));

        Scores blocks = new BlockInfluence(PruneSet.parse(List.of("blocks")), similarities).score(structure, Log.NONE);
        assertThat(blocks.blocks()).containsExactly(new double[] {0.1, 0.2, 0.3, 0.4, 0.5, 0.6}, within(1e-12));
        assertThat(blocks.units()).isEmpty();

        assertThatThrownBy(() -> new BlockInfluence(PruneSet.parse(List.of("ffn", "layers")), similarities)
                        .score(structure, Log.NONE))
                .isInstanceOf(UserException.class)
                .hasMessageStartingWith("metric block-influence scores layers and blocks only, not ffn, layers");
    }
}
