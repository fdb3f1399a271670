// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.TestModels;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.LoweredLinear;
import io.onnxprune.calibrate.SequentialRun;
import io.onnxprune.calibrate.SequentialRun.InputStatistics;
import io.onnxprune.compensate.LayerwisePruning.Update;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Role;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.plan.Plan;
import io.onnxprune.rewrite.PrunedState;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.BiConsumer;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("ort")
@Tag("slow")
class LayerwisePruningTest {
    private static final Selection EXACT = new ObsSelection(ObsSelection.Order.EXACT, 0.01);
    private static final Update LEAST_SQUARES = new Update(false, 0.01, false);

    @TempDir
    private Path folder;

    /** Lets a test look at each edit. */
    private record Observed(LayerwisePruning inner, BiConsumer<LoweredLinear, Step> watch)
            implements SequentialRun.Editor {
        @Override
        public boolean wants(LoweredLinear linear) {
            return inner.wants(linear);
        }

        @Override
        public Map<String, Tensor> edit(List<LoweredLinear> sharing, InputStatistics statistics) {
            Map<String, Tensor> edited = inner.edit(sharing, statistics);
            int n = sharing.get(0).input().width();
            try (Matrix a = Matrix.of(statistics.secondMoment().asFloats(), n, n)) {
                sharing.forEach(linear -> watch.accept(linear, new Step(a, edited.get(linear.weight()))));
            }
            return edited;
        }
    }

    /** The second moment of an input and the new contents of a weight that it meets. */
    private record Step(Matrix a, Tensor weight) {}

    private LayerwisePruning run(PrunedState state, Plan target, Selection selection, Update update) {
        return run(state, target, selection, update, (linear, step) -> {});
    }

    private LayerwisePruning run(
            PrunedState state, Plan target, Selection selection, Update update, BiConsumer<LoweredLinear, Step> watch) {
        LayerwisePruning pruning = new LayerwisePruning(
                state,
                LinearLayers.of(state.structure()),
                target,
                new LayerwisePruning.Method(Optional.ofNullable(selection), Optional.ofNullable(update)),
                folder,
                Log.NONE);
        SequentialRun.run(Runs.calibrator(state.model(), folder), null, Runs.rows(30), new Observed(pruning, watch));
        return pruning;
    }

    private static PrunedState dense(Structure structure) {
        return PrunedState.whole(structure, Plan.keepAll(""));
    }

    @ParameterizedTest
    @ValueSource(
            strings = {"stories-llama", "llama-gqa-d", "opt-f-a-bert", "gpt2-cb", "gpt-neox-d", "llama-g16-e-fp16"})
    void theUpdateLowersTheErrorOfEveryLinearLayer(String name) {
        Structure structure = TestModels.structure(name);
        LinearLayers layers = LinearLayers.of(structure);
        Plan target = Runs.plan(structure, 0.2, "heads", "ffn");
        Map<String, Double> errors = new LinkedHashMap<>();
        LayerwisePruning pruning = run(dense(structure), target, EXACT, LEAST_SQUARES, (linear, step) -> {
            LinearLayer layer = layers.ofWeight(linear.weight());
            try (Matrix before = WeightStore.read(layer.weight().constant(), layer.axis());
                    Matrix after = WeightStore.read(step.weight, layer.axis());
                    Matrix zeroed = withZerosOf(before, after)) {
                double with = Runs.error(step.a, before, after);
                double without = Runs.error(step.a, before, zeroed);
                errors.put(layer.node(), with / without);
            }
        });

        long count = structure.dimensions().stream()
                .filter(dimension -> Runs.kept(target, dimension).length < dimension.size())
                .flatMap(dimension -> layers.of(dimension).stream())
                .distinct()
                .count();
        assertThat(errors).hasSize((int) count).isNotEmpty();
        assertThat(errors).allSatisfy((node, share) -> assertThat(share).isLessThan(0.9));
        assertThat(pruning.updates().keySet())
                .filteredOn(value -> value.constant().rank() == 2)
                .hasSize((int) count);
    }

    private static Matrix withZerosOf(Matrix before, Matrix after) {
        Matrix zeroed = before.copy();
        for (int i = 0; i < before.rows(); i++) {
            for (int j = 0; j < before.columns(); j++) {
                zeroed.set(i, j, after.get(i, j) == 0 ? 0 : before.get(i, j));
            }
        }
        return zeroed;
    }

    @ParameterizedTest
    @ValueSource(strings = {"llama-gqa-d", "glm-d"})
    void asManyUnitsAreKeptAsThePlanHasAndOnlyTheirRowsAreNotZero(String name) {
        Structure structure = TestModels.structure(name);
        Plan target = Runs.plan(structure, 0.25, "heads", "query_heads", "ffn");
        LayerwisePruning pruning = run(dense(structure), target, EXACT, LEAST_SQUARES);
        Plan plan = pruning.plan();
        LinearLayers layers = LinearLayers.of(structure);

        assertThat(plan.keep().keySet()).isEqualTo(target.keep().keySet());
        target.keep()
                .forEach((key, kept) -> assertThat(plan.keep().get(key)).as(key).hasSameSizeAs(kept));
        assertThat(pruning.updates()).isNotEmpty();
        for (LinearLayer layer : layers.all()) {
            if (!pruning.updates().containsKey(layer.weight())) {
                continue;
            }
            Matrix w = WeightStore.read(pruning.updates().get(layer.weight()), layer.axis());
            for (int row = 0; row < layer.inputs(); row++) {
                boolean zero = true;
                for (int column = 0; column < layer.outputs(); column++) {
                    zero &= w.get(row, column) == 0;
                }
                assertThat(zero).isNotEqualTo(isKept(structure, plan, layer, row));
            }
            w.close();
        }
        assertThat(structure.dimensions())
                .anyMatch(dimension ->
                        dimension.role() == Role.QUERY_HEADS && Runs.kept(plan, dimension).length < dimension.size());
    }

    private static boolean isKept(Structure structure, Plan plan, LinearLayer layer, int row) {
        return structure.dimensions().stream()
                .filter(dimension -> layer.dim().atoms().contains(dimension.atom()))
                .allMatch(dimension -> {
                    int unit = layer.units(dimension)[row];
                    return unit < 0 || IntStream.of(Runs.kept(plan, dimension)).anyMatch(kept -> kept == unit);
                });
    }

    /** In the first FFN, whose inputs are the same for all selections. */
    @Test
    void thePapersRulesChooseAlmostAsWellAsTheExactOneAndBothBetterThanChance() {
        Structure structure = TestModels.structure("stories-llama");
        Plan target = Runs.plan(structure, 0.3, "ffn");
        double exact = firstError(structure, target, EXACT);
        double paper = firstError(structure, target, new ObsSelection(ObsSelection.Order.PAPER, 0.01));
        double anyUnits = firstError(structure, target, null);

        assertThat(paper).isBetween(exact, 1.2 * exact);
        assertThat(anyUnits).isGreaterThan(1.2 * exact);
    }

    private double firstError(Structure structure, Plan target, Selection selection) {
        LinearLayers layers = LinearLayers.of(structure);
        List<Double> errors = new ArrayList<>();
        run(dense(structure), target, selection, LEAST_SQUARES, (linear, step) -> {
            LinearLayer layer = layers.ofWeight(linear.weight());
            if (errors.isEmpty()) {
                try (Matrix before = WeightStore.read(layer.weight().constant(), layer.axis());
                        Matrix after = WeightStore.read(step.weight, layer.axis())) {
                    errors.add(Runs.error(step.a, before, after));
                }
            }
        });
        return errors.get(0);
    }

    @Test
    void aGivenPlanIsKeptAndCompensatedFor() {
        Structure structure = TestModels.structure("llama-gqa-d");
        Plan target = Runs.plan(structure, 0.3, "heads", "ffn");
        LayerwisePruning pruning = run(dense(structure), target, null, LEAST_SQUARES);

        target.keep()
                .forEach((key, kept) ->
                        assertThat(pruning.plan().keep().get(key)).containsExactly(kept));
        assertThat(pruning.updates()).isNotEmpty();
    }

    @Test
    void withoutAnUpdateTheKeptRowsDoNotChange() {
        Structure structure = TestModels.structure("llama-gqa-d");
        Plan target = Runs.plan(structure, 0.3, "heads", "ffn");
        LayerwisePruning pruning = run(dense(structure), target, EXACT, null);

        assertThat(pruning.updates()).isNotEmpty();
        pruning.updates().forEach((value, tensor) -> {
            float[] before = value.constant().toFloats();
            float[] after = tensor.toFloats();
            for (int i = 0; i < after.length; i++) {
                assertThat(after[i]).isIn(before[i], 0f);
            }
            assertThat(after).isNotEqualTo(before).contains(0);
        });
    }

    /** The second step compensates from the weights of the first. */
    @Test
    void aPrunedModelIsPrunedInTermsOfTheDenseModel() {
        Structure structure = TestModels.structure("llama-gqa-d");
        LayerwisePruning first =
                run(dense(structure), Runs.plan(structure, 0.15, "heads", "ffn"), EXACT, LEAST_SQUARES);
        PrunedState state = PrunedState.of(structure, first.plan(), first.updates());
        Plan counts = Runs.plan(structure, 0.3, "heads", "ffn");
        LayerwisePruning second = run(state, counts, EXACT, LEAST_SQUARES);

        Map<String, int[]> kept = new HashMap<>(second.plan().keep());
        for (Dimension dimension : structure.dimensions()) {
            int[] left = kept.getOrDefault(dimension.name(), Runs.kept(first.plan(), dimension));
            assertThat(Runs.kept(first.plan(), dimension)).contains(left);
            assertThat(left).hasSameSizeAs(Runs.kept(counts, dimension));
        }
        assertThat(second.updates()).isNotEmpty();
        second.updates().forEach((value, tensor) -> {
            assertThat(tensor.shape()).isEqualTo(value.constant().shape());
            float[] before =
                    first.updates().getOrDefault(value, value.constant()).toFloats();
            float[] after = tensor.toFloats();
            for (int i = 0; i < after.length; i++) {
                assertThat(before[i] != 0 || after[i] == 0).isTrue();
            }
        });
    }

    /**
     * An axis with two pruned dimensions: the second choice sees the result of the first, and the update compensates
     * for both at once.
     */
    @Test
    void aChosenPlanAndAGivenPlanYieldTheSameWeights() {
        Structure structure = TestModels.structure("llama-gqa-d");
        Plan target = Runs.plan(structure, 0.2, "heads", "query_heads", "ffn");
        LayerwisePruning chosen = run(dense(structure), target, EXACT, LEAST_SQUARES);
        LayerwisePruning given = run(dense(structure), chosen.plan(), null, LEAST_SQUARES);

        Map<Value, Tensor> expected = chosen.updates();
        assertThat(given.updates().keySet()).isEqualTo(expected.keySet());
        given.updates().forEach((value, tensor) -> {
            float[] left = tensor.toFloats();
            float[] right = expected.get(value).toFloats();
            for (int i = 0; i < left.length; i++) {
                assertThat(left[i]).isCloseTo(right[i], within(1e-6f));
            }
        });
    }
}
