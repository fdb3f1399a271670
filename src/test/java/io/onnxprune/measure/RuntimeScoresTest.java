// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.measure;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import io.onnxprune.calibrate.CalibrationOptions;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.Allocation;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.plan.RandomImportance;
import io.onnxprune.plan.Reduction;
import io.onnxprune.plan.Scores;
import io.onnxprune.plan.ScoresAssert;
import io.onnxprune.plan.Taylor;
import io.onnxprune.rewrite.PrunedState;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Scores by gradients that the runtime reduces are those by gradients that are read. */
@Tag("ort")
class RuntimeScoresTest {
    private static final PruneSet ALL = PruneSet.parse(List.of("heads", "ffn", "hidden", "layers"));
    private static final double ROUNDING = 1e-11;

    @TempDir
    private Path folder;

    private Taylor.Gradients gradients(PrunedState state) {
        Random random = new Random(3);
        List<long[]> rows = IntStream.range(0, 3)
                .mapToObj(row -> random.longs(12, 1, 30).toArray())
                .toList();
        CalibrationOptions options = new CalibrationOptions(CalibrationOptions.DEFAULT_MEMORY, folder, false);
        return new ModelGradients(state.model(), rows, TestModels.runtime(), options, "key", Log.NONE);
    }

    private static Scores scores(Structure structure, Taylor.Kind kind, Taylor.Gradients gradients) {
        return new Taylor(kind, Reduction.SUM, ALL, gradients).score(structure, Log.NONE);
    }

    private void compare(PrunedState state, Taylor.Kind kind) {
        Structure structure = state.structure();
        RuntimeGradients inRuntime = new RuntimeGradients(gradients(state));
        Scores expected = scores(structure, kind, new SlicedGradients(gradients(state), state));
        Scores found = scores(structure, kind, new SlicedGradients(inRuntime, state));

        ScoresAssert.assertEqual(found, expected, ROUNDING);
        assertThat(plan(structure, found).describe())
                .isEqualTo(plan(structure, expected).describe());
        assertThat(inRuntime.reduced()).isNotEmpty();
        assertThat(inRuntime.read()).isEmpty();
    }

    /** float32 with grouped heads, float16, a tied embedding, experts, and packed integers. */
    @ParameterizedTest
    @ValueSource(strings = {"llama-gqa-d", "llama-g16-e-fp16", "qwen2-g16-e-fp32", "qwen3-moe-d", "llama-g16-e-int4"})
    void theDenseModel(String name) {
        Structure structure = TestModels.structure(name);
        PrunedState dense = PrunedState.whole(structure, Plan.keepAll(""));
        for (Taylor.Kind kind : List.of(Taylor.Kind.ELEMENT1, Taylor.Kind.MIX)) {
            compare(dense, kind);
        }
    }

    @ParameterizedTest
    @EnumSource
    void everyKindOfAPrunedModel(Taylor.Kind kind) {
        compare(pruned("llama-gqa-d"), kind);
    }

    @ParameterizedTest
    @ValueSource(strings = {"qwen2-g16-e-fp32", "llama-g16-e-fp16", "qwen3-moe-d"})
    void aPrunedModel(String name) {
        compare(pruned(name), Taylor.Kind.ELEMENT1);
    }

    private static Plan plan(Structure structure, Scores scores) {
        Budget budget = Budget.ofRatio(ALL, 0.2);
        return Allocation.of(structure, scores, budget, "", Log.NONE).plan();
    }

    /** A pruned model of which some matrices changed too. */
    private static PrunedState pruned(String name) {
        Structure structure = TestModels.structure(name);
        Scores scores = new RandomImportance(3).score(structure, Log.NONE);
        Map<Value, Tensor> updates = new HashMap<>();
        structure.analysis().constantUses().keySet().stream()
                .map(use -> use.op().input(use.input()))
                .filter(value ->
                        value.constant().rank() == 2 && value.constant().dtype().isFloat())
                .limit(3)
                .forEach(value -> updates.put(value, doubled(value.constant())));
        PrunedState state = PrunedState.of(structure, plan(structure, scores), updates);
        assertThat(state.slices()).isNotEmpty();
        return state;
    }

    private static Tensor doubled(Tensor tensor) {
        float[] values = tensor.toFloats();
        for (int i = 0; i < values.length; i++) {
            values[i] *= 2;
        }
        return Tensor.ofFloats(tensor.dtype(), tensor.shape(), values);
    }
}
