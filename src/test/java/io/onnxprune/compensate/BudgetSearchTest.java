// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.withinPercentage;

import io.onnxprune.RecordedLog;
import io.onnxprune.TestModels;
import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.Divergence;
import io.onnxprune.compensate.BudgetSearch.Found;
import io.onnxprune.compensate.BudgetSearch.Settings;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.Allocation;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.ParameterCount;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.PositionImportance;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.plan.Reallocation;
import io.onnxprune.plan.Scores;
import io.onnxprune.rewrite.PrunedState;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("ort")
@Tag("slow")
class BudgetSearchTest {
    private static final Settings UNITS = new Settings(4, 8, 0.25, false, 0.01);

    @TempDir
    private Path folder;

    private static PrunedState dense(Structure structure) {
        return PrunedState.of(structure, Plan.keepAll(""), Map.of());
    }

    private static Scores scores(Structure structure) {
        return new PositionImportance().score(structure, Log.NONE);
    }

    private Found search(Structure structure, Budget budget, Settings settings, List<long[]> rows, Log log) {
        Plan start = Allocation.of(structure, scores(structure), budget, "", Log.NONE)
                .plan();
        Reallocation.Around around = new Reallocation.Around(Plan.keepAll(""), start);
        return BudgetSearch.run(
                Runs.model(dense(structure), folder, log),
                new BudgetSearch.Reference(
                        Runs.calibrator(structure.analysis().program().model(), folder), rows),
                movable -> new Reallocation(structure, scores(structure), budget, around, movable),
                settings,
                Optional.empty());
    }

    private double divergence(Calibrator dense, Calibrator model, List<long[]> rows) {
        try (Divergence divergence = Divergence.from(dense, model, rows)) {
            return Arrays.stream(model.losses(divergence)).average().orElseThrow();
        }
    }

    /** Two steps of a quarter of the channels in six layers: 21 allocations in all. */
    @Test
    void theBestOfAllAllocationsIsFound() {
        Structure structure = TestModels.structure("stories-llama");
        Budget budget = ffn(structure, 2);
        List<long[]> rows = Runs.rows(12);

        Found found = search(structure, budget, UNITS, rows, Log.NONE);

        PrunedModel model = Runs.model(dense(structure), folder, Log.NONE);
        Calibrator dense = Runs.calibrator(structure.analysis().program().model(), folder);
        Map<List<Integer>, Double> all = new HashMap<>();
        try (CandidateWeights weights = new CandidateWeights(model, UNITS.damping())) {
            for (List<Integer> steps : allocations(6, 2)) {
                Calibrator candidate = model.calibrator().withWeights(weights.of(plan(steps)));
                all.put(steps, divergence(dense, candidate, rows));
            }
        }
        assertThat(all).hasSize(21);
        List<Integer> best = all.entrySet().stream()
                .min(Map.Entry.comparingByValue())
                .orElseThrow()
                .getKey();
        assertThat(found.result().best().levels()).isEqualTo(best);
        assertThat(found.result().reached()).isLessThan(found.result().start());
        assertThat(found.result().reached()).isCloseTo(all.get(best), withinPercentage(0.1));
    }

    private static Budget ffn(Structure structure, int quarters) {
        ParameterCount count = ParameterCount.of(structure);
        long quarter = count.dense().parameters()
                - count.under(plan(List.of(1, 0, 0, 0, 0, 0))).parameters();
        return Budget.ofRatio(PruneSet.parse(List.of("ffn")), 0)
                .withScope(Budget.Scope.GLOBAL)
                .withTarget(Budget.Target.parameters((double) (count.dense().parameters() - quarters * quarter)))
                .withRounding(86, 1);
    }

    /** The plan in which each layer has lost a number of quarters of its channels, the last ones first. */
    private static Plan plan(List<Integer> quarters) {
        Map<String, int[]> keep = new LinkedHashMap<>();
        for (int layer = 0; layer < quarters.size(); layer++) {
            if (quarters.get(layer) > 0) {
                keep.put(
                        "ffn." + layer,
                        IntStream.range(0, 344 - 86 * quarters.get(layer)).toArray());
            }
        }
        return new Plan("", keep, null, null);
    }

    private static List<List<Integer>> allocations(int places, int steps) {
        if (places == 1) {
            return List.of(List.of(steps));
        }
        List<List<Integer>> all = new ArrayList<>();
        for (int first = 0; first <= steps; first++) {
            for (List<Integer> rest : allocations(places - 1, steps - first)) {
                List<Integer> one = new ArrayList<>(List.of(first));
                one.addAll(rest);
                all.add(one);
            }
        }
        return all;
    }

    /** The budget is met to half a channel, whatever moves; heads and entire blocks are coarse. */
    @ParameterizedTest
    @ValueSource(doubles = {0.2, 0.5})
    void theBudgetIsMetByAnyAllocation(double ratio) {
        Structure structure = TestModels.structure("stories-llama");
        Budget budget = Budget.ofRatio(PruneSet.standard(), ratio).withScope(Budget.Scope.GLOBAL);
        Plan start = Allocation.of(structure, scores(structure), budget, "", Log.NONE)
                .plan();
        Reallocation space = new Reallocation(
                structure,
                scores(structure),
                budget,
                new Reallocation.Around(Plan.keepAll(""), start),
                dimension -> true);
        ParameterCount count = ParameterCount.of(structure);
        double target = budget.target(count.dense());

        List<Reallocation.Point> points = new ArrayList<>(List.of(space.start()));
        for (int from = 0; from < space.size(); from++) {
            for (int to = 0; to < space.size(); to++) {
                space.moved(space.start(), from, to, space.meanSize() / 8).ifPresent(points::add);
            }
        }
        for (int block : space.removable(space.start())) {
            space.without(space.start(), block).ifPresent(gone -> {
                points.add(gone);
                points.add(space.with(gone, block).orElseThrow());
            });
        }

        assertThat(points).hasSizeGreaterThan(ratio < 0.3 ? 40 : 80);
        assertThat(points.stream().anyMatch(point -> !point.gone().isEmpty())).isTrue();
        for (Reallocation.Point point : points) {
            assertThat((double) count.under(space.plan(point)).parameters()).isBetween(target - 192, target + 192);
        }
    }

    /** A block whose last layer is zero adds nothing, as one that is not there. */
    @ParameterizedTest
    @ValueSource(strings = {"stories-llama", "gpt2-cb", "opt-c", "llama-g16-e-fp32"})
    void aBlockThatGoesIsOneThatIsNotThere(String name) {
        Structure structure = TestModels.structure(name);
        PrunedModel model = Runs.model(dense(structure), folder, Log.NONE);
        Calibrator dense = Runs.calibrator(structure.analysis().program().model(), folder);
        List<long[]> rows = Runs.rows(8);
        int all = structure.stream().blocks().size();
        try (CandidateWeights weights = new CandidateWeights(model, 0.01)) {
            for (int block : new int[] {0, all - 1}) {
                int[] kept =
                        IntStream.range(0, all).filter(index -> index != block).toArray();
                Plan plan = new Plan("", Map.of(), null, kept);
                PrunedState without = PrunedState.of(structure, plan, Map.of());

                assertThat(weights.canGo(block)).isTrue();
                double zero = divergence(dense, model.calibrator().withWeights(weights.of(plan)), rows);
                double removed = divergence(dense, Runs.calibrator(without.model(), folder), rows);

                assertThat(zero).isPositive();
                assertThat(zero).isCloseTo(removed, withinPercentage(0.1));
            }
        }
    }

    /** The weights of a candidate in the dense model compute what they compute in the pruned model. */
    @ParameterizedTest
    @ValueSource(strings = {"stories-llama", "gpt2-cb", "llama-gqa-d"})
    void aCandidateComputesWhatThePrunedModelComputes(String name) {
        Structure structure = TestModels.structure(name);
        PrunedModel model = Runs.model(dense(structure), folder, Log.NONE);
        Calibrator dense = Runs.calibrator(structure.analysis().program().model(), folder);
        List<long[]> rows = Runs.rows(8);
        Plan plan = Runs.plan(structure, 0.3, "heads", "ffn");
        try (CandidateWeights weights = new CandidateWeights(model, 0.01)) {
            Map<String, Tensor> contents = weights.of(plan);
            Map<Value, Tensor> updates = new HashMap<>();
            contents.forEach((initializer, tensor) ->
                    updates.put(structure.analysis().program().initializers().get(initializer), tensor));
            PrunedState pruned = PrunedState.of(structure, plan, updates);

            double candidate = divergence(dense, model.calibrator().withWeights(contents), rows);

            assertThat(contents)
                    .hasSizeGreaterThanOrEqualTo(2 * structure.stream().layers());
            assertThat(candidate)
                    .isCloseTo(divergence(dense, Runs.calibrator(pruned.model(), folder), rows), withinPercentage(0.1));
        }
    }

    /** Blocks of experts end in no linear layer, so they stay, and that is told. */
    @Test
    void blocksThatCannotBeZeroStay() {
        Structure structure = TestModels.structure("qwen3-moe-d");
        RecordedLog log = new RecordedLog();
        Budget budget = Budget.ofRatio(PruneSet.parse(List.of("heads")), 0.02).withScope(Budget.Scope.GLOBAL);

        search(structure, budget, new Settings(1, 2, 0.25, true, 0.01), Runs.rows(4), log);

        assertThat(log.warnings())
                .anyMatch(line ->
                        line.contains("do not go as a whole") && line.contains("does not end in a linear layer"));
    }
}
