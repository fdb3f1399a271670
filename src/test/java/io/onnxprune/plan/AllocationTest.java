package io.onnxprune.plan;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Structure;
import io.onnxprune.plan.Budget.Goal;
import io.onnxprune.plan.Budget.Layout;
import io.onnxprune.plan.Budget.Scope;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.Stream;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;

class AllocationTest {
    private static final List<String> MODELS = List.of(
            "stories-llama", "llama-gqa-d", "gpt2-g-merged", "llama-g16-e-int4", "qwen3-moe-d", "bloom-d", "phi3-d");

    static Stream<String> models() {
        return MODELS.stream();
    }

    @ParameterizedTest
    @MethodSource("models")
    void whatIsLeftIsWithinOneUnitOfTheTarget(String name) {
        Structure structure = TestModels.structure(name);
        Random random = new Random(17);
        for (int round = 0; round < 60; round++) {
            Budget budget = randomBudget(structure, random);
            Scores scores = new RandomImportance(round).score(structure, Log.NONE);
            double least = budget.measure(count(structure).under(smallest(structure, budget.prune())));
            Budget aimed = aim(structure, budget, least, random);
            Allocation allocation = Allocation.of(structure, scores, aimed, "", Log.NONE);

            double target = aimed.target(allocation.before());
            assertThat(Math.abs(aimed.measure(allocation.after()) - target))
                    .as("%s round %d: %s", name, round, aimed)
                    .isLessThanOrEqualTo(smallestUnit(structure, aimed));
            assertThat(allocation.after()).isEqualTo(count(structure).under(allocation.plan()));
            assertThat(allocation.plan().keep().values())
                    .allSatisfy(kept -> assertThat(kept).isNotEmpty());
        }
    }

    private static ParameterCount count(Structure structure) {
        return ParameterCount.of(structure);
    }

    private static Budget randomBudget(Structure structure, Random random) {
        List<String> words = new ArrayList<>();
        while (words.isEmpty()) {
            for (String word : List.of("heads", "ffn", "hidden")) {
                boolean present = structure.dimensions().stream()
                        .anyMatch(d -> d.isPrunable()
                                && d.size() > 2
                                && PruneSet.word(d.role()).equals(word));
                if (present && random.nextBoolean()) {
                    words.add(word);
                }
            }
        }
        return Budget.ofRatio(PruneSet.parse(words), 0)
                .withScope(random.nextBoolean() ? Scope.LOCAL : Scope.GLOBAL)
                .withLayout(random.nextBoolean() ? Layout.UNIFORM : Layout.PER_LAYER);
    }

    private static Budget aim(Structure structure, Budget budget, double least, Random random) {
        Goal goal = List.of(Goal.values()).get(random.nextInt(3));
        Budget aimed = budget.withTarget(goal == Goal.RATIO ? Goal.PARAMETERS : goal, 1);
        double whole = aimed.measure(count(structure).whole());
        double smallest =
                goal == Goal.BYTES ? aimed.measure(count(structure).under(smallest(structure, budget.prune()))) : least;
        double target = smallest + random.nextDouble() * (whole - smallest);
        return goal == Goal.RATIO
                ? budget.withTarget(Goal.RATIO, 1 - target / whole)
                : budget.withTarget(goal, Math.rint(target));
    }

    private static Plan smallest(Structure structure, PruneSet prune) {
        Map<String, int[]> keep = new java.util.HashMap<>();
        for (Dimension dimension : structure.dimensions()) {
            if (dimension.isPrunable() && prune.roles().contains(dimension.role())) {
                keep.put(dimension.name(), new int[] {0});
            }
        }
        return new Plan("", keep, null, null);
    }

    /** The smallest step of the budget on the whole model. */
    private static double smallestUnit(Structure structure, Budget budget) {
        Map<String, Long> steps = new java.util.HashMap<>();
        for (Dimension dimension : structure.dimensions()) {
            if (dimension.isPrunable() && budget.prune().roles().contains(dimension.role())) {
                boolean tied = budget.layout() == Layout.UNIFORM && dimension.layer() >= 0;
                String key = tied ? dimension.role() + "/" + dimension.size() : dimension.name();
                steps.merge(key, budget.measure(count(structure).unit(dimension)), Long::sum);
            }
        }
        return steps.values().stream().mapToLong(Long::longValue).min().orElseThrow();
    }

    @ParameterizedTest
    @EnumSource(Scope.class)
    void largerRatiosRemoveMore(Scope scope) {
        Structure structure = TestModels.structure("stories-llama");
        Scores scores = new RandomImportance(3).score(structure, Log.NONE);
        long last = Long.MAX_VALUE;
        for (int percent = 0; percent <= 85; percent++) {
            Budget budget = Budget.ofRatio(PruneSet.standard(), percent / 100.0).withScope(scope);
            long parameters = Allocation.of(structure, scores, budget, "", Log.NONE)
                    .after()
                    .parameters();
            assertThat(parameters).isLessThanOrEqualTo(last);
            last = parameters;
        }
    }
}
