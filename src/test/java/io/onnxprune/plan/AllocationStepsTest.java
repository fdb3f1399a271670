// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Structure;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.function.IntFunction;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

@Tag("ort")
class AllocationStepsTest {
    private static List<Plan> plans(Structure structure, Budget budget, int steps, IntFunction<Importance> importance) {
        List<Plan> plans = new ArrayList<>();
        Plan reached = Plan.keepAll("");
        ParameterCount.Size dense = ParameterCount.of(structure).dense();
        for (int step = 1; step <= steps; step++) {
            Scores scores = importance.apply(step).score(structure, Log.NONE).after(reached, structure);
            reached = Allocation.of(structure, scores, budget.atStep(step, steps, dense), "", Log.NONE)
                    .plan();
            plans.add(reached);
        }
        return plans;
    }

    @ParameterizedTest
    @EnumSource(Budget.Scope.class)
    void whatOneStepPrunesRemainsPruned(Budget.Scope scope) {
        Structure structure = TestModels.structure("stories-llama");
        Budget budget = Budget.ofRatio(PruneSet.standard(), 0.5).withScope(scope);
        List<Plan> plans = plans(structure, budget, 5, RandomImportance::new);
        ParameterCount count = ParameterCount.of(structure);

        assertThat(plans).hasSize(5);
        for (int step = 0; step < 5; step++) {
            double left = 1 - 0.1 * (step + 1);
            long dense = count.dense().parameters();
            assertThat((double) count.under(plans.get(step)).parameters() / dense)
                    .isBetween(left - 400.0 / dense, left + 400.0 / dense);
            for (Dimension dimension : structure.dimensions()) {
                if (step > 0) {
                    assertThat(kept(plans.get(step - 1), dimension)).containsAll(kept(plans.get(step), dimension));
                }
            }
        }
    }

    private static List<Integer> kept(Plan plan, Dimension dimension) {
        int[] all = IntStream.range(0, dimension.size()).toArray();
        return Arrays.stream(plan.keep().getOrDefault(dimension.name(), all))
                .boxed()
                .toList();
    }

    @Test
    void withScoresThatDoNotChangeStepsEndWhereOneDoes() {
        Structure structure = TestModels.structure("llama-gqa-d");
        Budget budget = Budget.ofRatio(PruneSet.parse(List.of("ffn", "hidden")), 0.4);
        IntFunction<Importance> importance = step -> new Magnitude(Magnitude.Norm.L2, Reduction.SUM, 1);
        Plan one = plans(structure, budget, 1, importance).get(0);
        Plan last = plans(structure, budget, 4, importance).get(3);

        assertThat(one.keep()).isNotEmpty();
        assertThat(last.keep().keySet()).isEqualTo(one.keep().keySet());
        one.keep().forEach((name, kept) -> assertThat(last.keep().get(name)).containsExactly(kept));
    }

    @Test
    void prunedLayersRemainPruned() {
        Structure structure = TestModels.structure("stories-llama");
        Budget budget = Budget.ofRatio(PruneSet.parse(List.of("layers")), 0.45);
        List<Plan> plans = plans(structure, budget, 3, RandomImportance::new);

        assertThat(plans.get(2).layers()).hasSize(3);
        for (int step = 1; step < 3; step++) {
            assertThat(plans.get(step - 1).layers())
                    .contains(Arrays.stream(plans.get(step).layers()).boxed().toArray(Integer[]::new));
        }
    }
}
