// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UsageException;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Role;
import io.onnxprune.dims.Structure;
import io.onnxprune.plan.Budget.Goal;
import io.onnxprune.plan.Budget.Layout;
import io.onnxprune.plan.Budget.Scope;
import io.onnxprune.plan.Budget.Target;
import java.lang.reflect.Proxy;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumMap;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("ort")
class AllocationTest {
    private static final List<String> MODELS = List.of(
            "stories-llama", "llama-gqa-d", "gpt2-g-merged", "llama-g16-e-int4", "qwen3-moe-d", "bloom-d", "phi3-d");

    static Stream<String> models() {
        return MODELS.stream();
    }

    @ParameterizedTest
    @MethodSource("models")
    void thePrunedSizeIsWithinOneUnitOfTheTarget(String name) {
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
        int kind = random.nextInt(3);
        Budget aimed = budget.withTarget(kind == 0 ? Target.bytes(1) : Target.parameters(1));
        double dense = aimed.measure(count(structure).dense());
        double smallest =
                kind == 0 ? aimed.measure(count(structure).under(smallest(structure, budget.prune()))) : least;
        double target = smallest + random.nextDouble() * (dense - smallest);
        return kind == 1
                ? budget.withTarget(Target.ratio(1 - target / dense))
                : aimed.withTarget(new Target(Goal.AMOUNT, Math.rint(target), aimed.currency()));
    }

    private static Plan smallest(Structure structure, PruneSet prune) {
        Map<String, int[]> keep = new HashMap<>();
        for (Dimension dimension : structure.dimensions()) {
            if (dimension.isPrunable() && prune.roles().contains(dimension.role())) {
                keep.put(dimension.name(), new int[] {0});
            }
        }
        return new Plan("", keep, null, null);
    }

    /** The smallest step of the budget on the dense model. */
    private static double smallestUnit(Structure structure, Budget budget) {
        Map<String, Double> steps = new HashMap<>();
        for (Dimension dimension : structure.dimensions()) {
            if (dimension.isPrunable() && budget.prune().roles().contains(dimension.role())) {
                boolean tied = budget.layout() == Layout.UNIFORM && dimension.layer() >= 0;
                String key = tied ? dimension.role() + "/" + dimension.size() : dimension.name();
                steps.merge(key, budget.measure(count(structure).unit(dimension)), Double::sum);
            }
        }
        return steps.values().stream().mapToDouble(Double::doubleValue).min().orElseThrow();
    }

    @ParameterizedTest
    @EnumSource(Scope.class)
    void largerRatiosPruneMore(Scope scope) {
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

    @Test
    void localScopePrunesEveryDimensionByOneRatio() {
        Plan plan = allocate("stories-llama", Budget.ofRatio(PruneSet.standard(), 0.3))
                .plan();

        assertThat(counts(plan, "heads.")).hasSize(6).containsOnly(5);
        int[] channels = counts(plan, "ffn.");
        assertThat(channels).hasSize(6);
        int least = Arrays.stream(channels).min().orElseThrow();
        assertThat(Arrays.stream(channels).max().orElseThrow() - least).isLessThanOrEqualTo(1);
        // Heads are rounded to 3/8, and the channels take up the difference.
        assertThat(least / 344.0).isBetween(0.6, 0.75);
    }

    @ParameterizedTest
    @MethodSource("models")
    void uniformLayoutKeepsEqualCounts(String name) {
        Structure structure = TestModels.structure(name);
        for (Scope scope : Scope.values()) {
            Budget budget =
                    Budget.ofRatio(PruneSet.standard(), 0.1).withScope(scope).withLayout(Layout.UNIFORM);
            Plan plan = allocate(name, budget).plan();
            Map<Role, List<Integer>> counts = new EnumMap<>(Role.class);
            structure.dimensions().stream()
                    .filter(Dimension::isPrunable)
                    .filter(d -> d.role() == Role.FFN || PruneSet.word(d.role()).equals("heads"))
                    .forEach(d -> counts.computeIfAbsent(d.role(), key -> new ArrayList<>())
                            .add(plan.keep().containsKey(d.name()) ? plan.keep().get(d.name()).length : d.size()));
            assertThat(counts).isNotEmpty();
            assertThat(counts.values()).allSatisfy(same -> assertThat(same).containsOnly(same.get(0)));
        }
    }

    @ParameterizedTest
    @EnumSource(Scope.class)
    void sizesAreRoundedToMultiples(Scope scope) {
        Budget budget = Budget.ofRatio(PruneSet.parse(List.of("heads", "ffn", "hidden")), 0.4)
                .withScope(scope)
                .withRounding(32, 2);
        Plan plan = allocate("stories-llama", budget).plan();

        plan.keep()
                .forEach((name, kept) -> assertThat(kept.length % (name.startsWith("heads") ? 2 : 32))
                        .as(name)
                        .isZero());
        assertThat(plan.keep()).isNotEmpty();
    }

    @Test
    void quantisationBlocksCountAsTheChannelsThatTheyHold() {
        Plan plan = allocate(
                        "llama-g16-e-int4",
                        Budget.ofRatio(PruneSet.parse(List.of("ffn")), 0.1).withRounding(32, 1))
                .plan();

        assertThat(plan.keep()).isNotEmpty();
        assertThat(plan.keep().values()).allSatisfy(kept -> assertThat(kept).hasSizeBetween(1, 2));
    }

    @ParameterizedTest
    @EnumSource(Scope.class)
    void theLeastImportantUnitsArePruned(Scope scope) {
        Structure structure = TestModels.structure("stories-llama");
        Scores scores = new RandomImportance(9).score(structure, Log.NONE);
        Budget budget = Budget.ofRatio(PruneSet.standard(), 0.35).withScope(scope);
        Plan plan = Allocation.of(structure, scores, budget, "", Log.NONE).plan();

        plan.keep().forEach((name, kept) -> {
            double[] units = scores.units().get(name);
            double worst = Arrays.stream(kept).mapToDouble(i -> units[i]).min().orElseThrow();
            int[] removed = ParameterCountTest.without(units.length, kept);
            assertThat(Arrays.stream(removed).mapToDouble(i -> units[i]).max().orElseThrow())
                    .as(name)
                    .isLessThanOrEqualTo(worst);
        });
    }

    @Test
    void globalScopeRanksByScorePerParameter() {
        Structure structure = TestModels.structure("stories-llama");
        Scores scores = new RandomImportance(4).score(structure, Log.NONE);
        double cheap = 1e-3;
        Arrays.setAll(scores.units().get("ffn.4"), i -> cheap * scores.units().get("ffn.4")[i]);
        Budget budget = Budget.ofRatio(PruneSet.parse(List.of("ffn")), 0.05).withScope(Scope.GLOBAL);
        Plan plan = Allocation.of(structure, scores, budget, "", Log.NONE).plan();

        assertThat(plan.keep()).containsOnlyKeys("ffn.4");
        // A head of equal score is 21 times as large, so it is pruned before any channel.
        scores.units().values().forEach(units -> Arrays.fill(units, 1));
        Budget mixed = Budget.ofRatio(PruneSet.standard(), 0.1).withScope(Scope.GLOBAL);
        Plan heads = Allocation.of(structure, scores, mixed, "", Log.NONE).plan();
        assertThat(Arrays.stream(counts(heads, "heads."))
                        .map(count -> 8 - count)
                        .sum())
                .isGreaterThanOrEqualTo(15);
        assertThat(Arrays.stream(counts(heads, "ffn."))
                        .map(count -> 344 - count)
                        .sum())
                .isLessThan(22);
    }

    @ParameterizedTest
    @EnumSource(Scope.class)
    void fineUnitsAreRestoredWhenOnlyACoarseOneReachesTheTarget(Scope scope) {
        Structure structure = TestModels.structure("stories-llama");
        ParameterCount count = count(structure);
        PruneSet prune = PruneSet.standard();
        double least = count.under(smallest(structure, prune)).parameters();
        long head = count.unit(ParameterCountTest.named(structure, "heads.0")).parameters();
        for (int channels = 0; channels < 30; channels++) {
            Budget budget = Budget.ofRatio(prune, 0)
                    .withScope(scope)
                    .withTarget(Target.parameters(least + head + channels * 384.0));
            Allocation allocation = allocate("stories-llama", budget);
            assertThat(Math.abs(allocation.after().parameters() - budget.amount()))
                    .isLessThanOrEqualTo(384);
        }
    }

    @Test
    void protectedAndSkippedUnitsAreKept() {
        Budget budget = Budget.ofRatio(PruneSet.standard(), 0.15).withProtection(List.of("ffn.2", "heads.?"), 1, 2);
        Plan plan = allocate("stories-llama", budget).plan();

        assertThat(plan.keep()).containsOnlyKeys("ffn.1", "ffn.3");
    }

    @Test
    void theLeastImportantLayersArePruned() {
        Structure structure = TestModels.structure("stories-llama");
        Scores scores = new RandomImportance(2).score(structure, Log.NONE);
        Arrays.setAll(scores.layers(), layer -> List.of(5, 1, 4, 0, 2, 3).get(layer));
        PruneSet layers = PruneSet.parse(List.of("layers"));
        double layer = count(structure).layer(0).parameters();
        double dense = count(structure).dense().parameters();

        assertThat(plan(structure, scores, Budget.ofRatio(layers, 2.4 * layer / dense))
                        .layers())
                .containsExactly(0, 2, 4, 5);
        assertThat(plan(structure, scores, Budget.ofRatio(layers, 2.6 * layer / dense))
                        .layers())
                .containsExactly(0, 2, 5);
        Budget skipping = Budget.ofRatio(layers, 2 * layer / dense).withProtection(List.of("layers.4"), 0, 3);
        assertThat(plan(structure, scores, skipping).layers()).containsExactly(0, 3, 4, 5);
        assertThat(plan(structure, scores, Budget.ofRatio(layers, 5 * layer / dense))
                        .layers())
                .containsExactly(0);
    }

    @Test
    void layersArePrunedFirstThenUnitsUpToTheTarget() {
        Structure structure = TestModels.structure("stories-llama");
        double dense = count(structure).dense().parameters();
        double layer = count(structure).layer(0).parameters();
        Budget budget = Budget.ofRatio(PruneSet.parse(List.of("ffn", "layers")), 2.5 * layer / dense);
        Allocation allocation = allocate("stories-llama", budget);

        assertThat(allocation.plan().layers()).hasSize(4);
        List<Integer> kept = IntStream.of(allocation.plan().layers()).boxed().toList();
        assertThat(allocation.plan().keep().keySet())
                .allSatisfy(name -> assertThat(kept).contains(Integer.valueOf(name.substring(4))));
        assertThat(Math.abs(allocation.after().parameters() - (dense - 2.5 * layer)))
                .isLessThanOrEqualTo(384);
    }

    @Test
    void blocksArePrunedSingly() {
        Plan single = allocate("stories-llama", Budget.ofRatio(PruneSet.parse(List.of("blocks")), 0.1))
                .plan();
        assertThat(single.layers()).isNull();
        assertThat(single.blocks()).hasSizeBetween(10, 11);
    }

    @Test
    void blocksInsideBranchesCannotBePruned() {
        assertThatThrownBy(() -> allocate("gpt2-g-merged", Budget.ofRatio(PruneSet.parse(List.of("blocks")), 0.2)))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("inside a branch of an If, at node \"/m/transformer/h.0/Add\" (Add)");
    }

    @Test
    void nothingIsPrunedAtRatioZero() {
        Allocation allocation = allocate("stories-llama", Budget.ofRatio(PruneSet.standard(), 0));

        assertThat(allocation.plan().keep()).isEmpty();
        assertThat(allocation.plan().layers()).isNull();
        assertThat(allocation.after()).isEqualTo(allocation.before());
        assertThat(allocation.ratio()).isZero();
    }

    @Test
    void anUnreachableTargetNamesTheLargestReachableRatio() {
        assertThatThrownBy(() -> allocate("stories-llama", Budget.ofRatio(PruneSet.parse(List.of("ffn")), 0.9)))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("cannot be reached by pruning ffn: at least 528,256 remain (ratio 0.5994)");
        assertThatThrownBy(() -> allocate(
                        "stories-llama",
                        Budget.ofRatio(PruneSet.parse(List.of("ffn")), 0.5).withProtection(List.of("ffn.0"), 0, 2)))
                .isInstanceOf(UserException.class)
                .hasMessageContaining(
                        "because ffn.0 is protected, ffn.4 is in a skipped layer, ffn.5 is in a skipped layer;");
        assertThatThrownBy(() -> allocate(
                        "stories-llama", Budget.ofRatio(PruneSet.standard(), 0).withTarget(Target.parameters(2e9))))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("the model already has only");
    }

    @Test
    void rolesThatAreAbsentOrPinnedAreRefused() {
        assertThatThrownBy(() -> allocate("stories-llama", Budget.ofRatio(PruneSet.parse(List.of("experts")), 0.1)))
                .isInstanceOf(UserException.class)
                .hasMessage("there are no experts to prune in this model; it has heads, ffn, hidden, qk_head_dim,"
                        + " v_head_dim");
        assertThatThrownBy(
                        () -> allocate("llama-g16-e-fp16", Budget.ofRatio(PruneSet.parse(List.of("v_head_dim")), 0.01)))
                .isInstanceOf(UserException.class)
                .hasMessageContaining(
                        "no v_head_dim can be pruned in this model: v_head_dim.0 is pinned, the head size of a fused attention");
    }

    @Test
    void aProtectedLayerHoldsBackAUniformLayout() {
        Structure structure = TestModels.structure("stories-llama");
        Budget budget = Budget.ofRatio(PruneSet.standard(), 0.1)
                .withLayout(Layout.UNIFORM)
                .withProtection(List.of("heads.1"), 0, 0);
        List<String> warnings = new ArrayList<>();
        Plan plan = Allocation.of(
                        structure, new RandomImportance(1).score(structure, Log.NONE), budget, "", recording(warnings))
                .plan();

        assertThat(plan.keep().keySet()).hasSize(6).allMatch(name -> name.startsWith("ffn."));
        assertThat(warnings)
                .containsExactly("heads are not pruned, because a uniform layout prunes all layers or none:"
                        + " heads.1 is protected");
    }

    @Test
    void aRoleThatIsPinnedInPartsIsAWarning() {
        List<String> warnings = new ArrayList<>();
        Structure structure = TestModels.structure("phi3-d");
        Budget budget = Budget.ofRatio(PruneSet.parse(List.of("v_head_dim")), 0.02);
        Allocation.of(structure, new RandomImportance(1).score(structure, Log.NONE), budget, "", recording(warnings));

        assertThat(warnings)
                .singleElement()
                .asString()
                .contains("4 of 6 dimensions of value head size are not pruned: v_head_dim.0-1, sliced by varying");
    }

    @ParameterizedTest
    @ValueSource(doubles = {-0.1, 1, 1.5, Double.NaN})
    void ratiosAreSharesBelowOne(double ratio) {
        assertThatThrownBy(() -> Budget.ofRatio(PruneSet.standard(), ratio))
                .isInstanceOf(UsageException.class)
                .hasMessageContaining("at least 0 and less than 1");
    }

    @Test
    void wordsAndPatternsAreChecked() {
        assertThatThrownBy(() -> PruneSet.parse(List.of("hiden")))
                .isInstanceOf(UsageException.class)
                .hasMessageEndingWith("did you mean \"hidden\"?");
        assertThatThrownBy(() -> PruneSet.parse(List.of())).isInstanceOf(UsageException.class);
        assertThat(PruneSet.parse(List.of("Heads", "v-head-dim", "layers")))
                .isEqualTo(new PruneSet(java.util.EnumSet.of(Role.HEADS, Role.KV_HEADS, Role.V_HEAD_DIM), true, false))
                .hasToString("heads, v_head_dim, layers");
        Budget budget = Budget.ofRatio(PruneSet.standard(), 0.1).withProtection(List.of("fnn.1"), 0, 0);
        assertThatThrownBy(() -> allocate("stories-llama", budget))
                .isInstanceOf(UsageException.class)
                .hasMessage("the pattern \"fnn.1\" protects nothing in this model; did you mean \"ffn.1\"?");
    }

    private static Log recording(List<String> warnings) {
        return (Log) Proxy.newProxyInstance(
                Log.class.getClassLoader(), new Class<?>[] {Log.class}, (proxy, method, arguments) -> {
                    if (method.getName().equals("warn")) {
                        warnings.add((String) arguments[0]);
                    }
                    return null;
                });
    }

    private static Allocation allocate(String name, Budget budget) {
        Structure structure = TestModels.structure(name);
        return Allocation.of(structure, new RandomImportance(11).score(structure, Log.NONE), budget, "", Log.NONE);
    }

    private static Plan plan(Structure structure, Scores scores, Budget budget) {
        return Allocation.of(structure, scores, budget, "", Log.NONE).plan();
    }

    private static int[] counts(Plan plan, String prefix) {
        return plan.keep().entrySet().stream()
                .filter(entry -> entry.getKey().startsWith(prefix))
                .mapToInt(entry -> entry.getValue().length)
                .toArray();
    }

    /** 4 × 128 × 128 parameters in 8 heads, 3 × 128 in each of 344 channels. */
    @ParameterizedTest
    @ValueSource(doubles = {0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6})
    void headCountsAreRoundedToTheCommonRatio(double ratio) {
        Allocation allocation = allocate("stories-llama", Budget.ofRatio(PruneSet.standard(), ratio));
        double share = ratio * allocation.before().parameters() / (6 * (4 * 128 * 128 + 344 * 3 * 128));

        for (int heads : counts(allocation.plan(), "heads.")) {
            assertThat(Math.abs(heads - 8 * (1 - share))).isLessThanOrEqualTo(0.5 + 1e-9);
        }
    }

    @Test
    void rankScoreIgnoresTheSizeOfUnits() {
        Structure structure = TestModels.structure("stories-llama");
        Map<String, double[]> units = new HashMap<>();
        for (Dimension dimension : structure.dimensions()) {
            double[] scores = new double[dimension.size()];
            Arrays.fill(scores, dimension.role() == Role.FFN ? 1 : 2);
            units.put(dimension.name(), scores);
        }
        Scores scores = new Scores(units, new double[6], new double[12]);
        Budget budget = Budget.ofRatio(PruneSet.standard(), 0.2).withScope(Scope.GLOBAL);
        Plan cheap = Allocation.of(structure, scores, budget, "", Log.NONE).plan();
        Plan plain = Allocation.of(structure, scores, budget.withRank(Budget.Rank.SCORE), "", Log.NONE)
                .plan();

        assertThat(cheap.keep().keySet()).anyMatch(name -> name.startsWith("heads."));
        assertThat(plain.keep().keySet()).isNotEmpty().allMatch(name -> name.startsWith("ffn."));
    }

    @Test
    void stepsToATargetAreEqual() {
        ParameterCount.Size dense = new ParameterCount.Size(1000, 4000);
        Budget ratio = Budget.ofRatio(PruneSet.standard(), 0.4);
        Budget bytes = ratio.withTarget(Target.bytes(1000));

        assertThat(ratio.atStep(1, 4, dense).amount()).isEqualTo(0.1);
        assertThat(bytes.atStep(1, 4, dense).amount()).isEqualTo(3250);
        assertThat(bytes.atStep(4, 4, dense)).isEqualTo(bytes);
        assertThat(bytes.withTarget(Target.bytes(5000)).atStep(1, 4, dense).amount())
                .isEqualTo(5000);
    }

    @ParameterizedTest
    @org.junit.jupiter.params.provider.CsvSource({
        "12.5%, 32, 4",
        "6.25%, 32, 2",
        "12.5%, 6, 1",
        "12.5%, 3, 0",
        "2, 6, 2",
        "0, 6, 0",
        "100%, 5, 5"
    })
    void numbersOfLayersMayBeShares(String text, int layers, int expected) {
        assertThat(LayerCount.parse(text).in(layers)).isEqualTo(expected);
    }

    @ParameterizedTest
    @ValueSource(strings = {"-1", "1.5", "-5%", "101%", "x", "%", ""})
    void invalidNumbersOfLayersAreRefused(String text) {
        assertThatThrownBy(() -> LayerCount.parse(text)).isInstanceOf(UsageException.class);
    }
}
