// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UsageException;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.StateSize;
import io.onnxprune.dims.Structure;
import io.onnxprune.plan.Budget.Goal;
import io.onnxprune.plan.Budget.Scope;
import io.onnxprune.plan.Budget.Target;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

@Tag("ort")
class CurrencyTest {
    static Stream<String> models() {
        return Stream.of("llama-gqa-d", "stories-llama", "phi3-d", "hybrid-conv", "qwen3-moe-d");
    }

    /** Two caches of 4 KV heads of 8 float32 numbers in each of 2 layers, or as the model says. */
    @Test
    void memoryIsThatOfWeightsAndCaches() {
        Structure structure = TestModels.structure("llama-gqa-d");
        ParameterCount count = ParameterCount.of(structure, Currency.memory(100));
        double states = StateSize.of(structure.analysis(), 100).stream()
                .mapToDouble(state -> state.bytes(atom -> atom.size(0)))
                .sum();
        Dimension groups = dimension(structure, "kv_heads.0");

        assertThat(count.dense().other()).isEqualTo(states).isPositive();
        // A KV group has a key and a value, in float32, of each of 100 tokens.
        double size = states / structure.stream().layers() / groups.size();
        assertThat(count.unit(groups).other()).isEqualTo(size);
        assertThat(Currency.memory(100).amount(count.dense()))
                .isEqualTo(count.dense().bytes() + states);
        assertThat(ParameterCount.of(structure, Currency.memory(200)).dense().other())
                .isEqualTo(2 * states);
    }

    @Test
    void aCacheGoesWithItsLayer() {
        Structure structure = TestModels.structure("llama-gqa-d");
        ParameterCount count = ParameterCount.of(structure, Currency.memory(64));
        double all = count.dense().other();

        assertThat(count.under(new Plan("", Map.of(), new int[] {0}, null)).other())
                .isEqualTo(all / structure.stream().layers());
    }

    private static Dimension dimension(Structure structure, String name) {
        return structure.dimensions().stream()
                .filter(found -> found.name().equals(name))
                .findFirst()
                .orElseThrow();
    }

    /** Of all plans that keep more than the chosen one, none is within the limit. */
    @ParameterizedTest
    @MethodSource("models")
    void aLimitIsKeptAsNearAsUnitsAllow(String name) {
        Structure structure = TestModels.structure(name);
        for (int round = 0; round < 12; round++) {
            Currency currency = Currency.memory(1L << round);
            Budget any = Budget.ofRatio(PruneSet.standard(), 0)
                    .withScope(round % 2 == 0 ? Scope.LOCAL : Scope.GLOBAL)
                    .withTarget(new Target(Goal.AMOUNT, 1, currency));
            ParameterCount count = ParameterCount.of(structure, currency);
            double dense = any.measure(count.dense());
            double least = any.measure(count.under(Allocation.smallest(structure, any, "")));
            double target = Math.rint(least + (dense - least) * (0.1 + 0.07 * round));
            Budget budget = any.withTarget(new Target(Goal.AMOUNT, target, currency));
            Scores scores = new RandomImportance(round).score(structure, Log.NONE);
            Plan plan = Allocation.of(structure, scores, budget, "", Log.NONE).plan();

            assertThat(any.measure(count.under(plan))).isLessThanOrEqualTo(target);
            for (Plan larger : larger(structure, plan)) {
                assertThat(any.measure(count.under(larger)))
                        .as("%s round %d: a unit more", name, round)
                        .isGreaterThan(target);
            }
        }
    }

    /** The plans that keep one more unit of one dimension. */
    private static List<Plan> larger(Structure structure, Plan plan) {
        List<Plan> plans = new ArrayList<>();
        plan.keep().forEach((name, kept) -> {
            int size = dimension(structure, name).size();
            if (kept.length < size) {
                Map<String, int[]> keep = new HashMap<>(plan.keep());
                int extra = IntStream.range(0, size)
                        .filter(unit -> IntStream.of(kept).noneMatch(other -> other == unit))
                        .findFirst()
                        .orElseThrow();
                keep.put(
                        name,
                        IntStream.concat(IntStream.of(kept), IntStream.of(extra))
                                .sorted()
                                .toArray());
                plans.add(new Plan("", keep, null, null));
            }
        });
        return plans;
    }

    /** All counts of few dimensions are tried. */
    @Test
    void noOtherCountsAreBetterThanTheChosenOnes() {
        Structure structure = TestModels.structure("llama-gqa-d");
        for (Currency currency : List.of(Currency.parameters(), Currency.bytes(), Currency.memory(50))) {
            Budget heads = Budget.ofRatio(PruneSet.parse(List.of("heads")), 0).withScope(Scope.GLOBAL);
            ParameterCount count = ParameterCount.of(structure, currency);
            List<Dimension> all = Allocation.candidates(structure, heads);
            Scores scores = new RandomImportance(5).score(structure, Log.NONE);
            for (double share : new double[] {0.98, 0.93, 0.9}) {
                double target = share * currency.amount(count.dense());
                Budget budget = heads.withTarget(new Target(Goal.AMOUNT, target, currency));
                Plan plan =
                        Allocation.of(structure, scores, budget, "", Log.NONE).plan();
                double missed = currency.amount(count.under(plan)) - target;
                double best = everyCount(all).stream()
                        .mapToDouble(keep -> currency.amount(count.under(new Plan("", keep, null, null))) - target)
                        .filter(off -> !currency.isLimit() || off <= 0)
                        .map(Math::abs)
                        .min()
                        .orElseThrow();
                assertThat(Math.abs(missed)).as(currency + " " + share).isEqualTo(best);
            }
        }
    }

    /** The first units of each dimension, in any numbers. */
    private static List<Map<String, int[]>> everyCount(List<Dimension> dimensions) {
        List<Map<String, int[]>> all = List.of(Map.of());
        for (Dimension dimension : dimensions) {
            List<Map<String, int[]>> more = new ArrayList<>();
            for (Map<String, int[]> before : all) {
                for (int count = 1; count <= dimension.size(); count++) {
                    Map<String, int[]> keep = new HashMap<>(before);
                    keep.put(dimension.name(), IntStream.range(0, count).toArray());
                    more.add(keep);
                }
            }
            all = more;
        }
        return all;
    }

    @Test
    void stepsAreEqualInTheCurrency() {
        ParameterCount.Size dense = new ParameterCount.Size(1000, 4000, 6000);
        Budget budget =
                Budget.ofRatio(PruneSet.standard(), 0).withTarget(new Target(Goal.FACTOR, 2, Currency.memory(1)));

        assertThat(budget.target(dense)).isEqualTo(5000);
        assertThat(budget.ratio(dense)).isEqualTo(0.5);
        assertThat(budget.atStep(1, 4, dense).target(dense)).isEqualTo(8750);
        assertThat(budget.atStep(4, 4, dense)).isEqualTo(budget);
        assertThatThrownBy(() -> new Target(Goal.FACTOR, 1, Currency.bytes())).isInstanceOf(UsageException.class);
    }
}
