// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.latency;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Role;
import io.onnxprune.dims.Structure;
import io.onnxprune.eval.Workload;
import io.onnxprune.eval.Workload.Kind;
import io.onnxprune.latency.ProductShape.Form;
import io.onnxprune.plan.Allocation;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.Budget.Scope;
import io.onnxprune.plan.ParameterCount;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.plan.RandomImportance;
import io.onnxprune.plan.Scores;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

/** Plans for a time by a timer that only counts, so that no test depends on a clock. */
@Tag("ort")
class TimeCurrencyTest {
    private static final Workload PREFILL = new Workload(Kind.PREFILL, 32);
    private static final double DENSE = 0.1;

    @TempDir
    private Path folder;

    private TimeCurrency currency(Workload work, double factor, ProductTimer timer) {
        return new TimeCurrency(work, new TimeTable(folder.resolve("times"), "fake", timer, Log.NONE), DENSE, factor);
    }

    private static double byWork(ProductShape shape) {
        return 1e-9 * shape.work();
    }

    /** Columns and sums are padded to multiples of 64. */
    private static double padded(ProductShape shape) {
        return 1e-9 * shape.rows() * shape.batch() * pad(shape.inner()) * pad(shape.columns());
    }

    private static long pad(long size) {
        return (size + 63) / 64 * 64;
    }

    private static Budget budget(double seconds, TimeCurrency currency) {
        return Budget.ofRatio(PruneSet.standard(), 0)
                .withTarget(new Budget.Target(Budget.Goal.AMOUNT, seconds, currency));
    }

    private static Plan first(Map<String, Integer> counts) {
        Map<String, int[]> keep = new java.util.HashMap<>();
        counts.forEach((name, count) -> keep.put(name, IntStream.range(0, count).toArray()));
        return new Plan("", keep, null, null);
    }

    /** stories-llama: width 128, 8 heads of 16, 344 channels, 6 layers, 512 tokens or so. */
    @ParameterizedTest
    @CsvSource({"PREFILL, 32, 32", "DECODE, 1, 33"})
    void aPrunedModelSavesWhatItsProductsSave(Kind kind, long rows, long positions) {
        Structure structure = TestModels.structure("stories-llama");
        TimeCurrency currency = currency(new Workload(kind, 32), 1.5, TimeCurrencyTest::byWork);
        ParameterCount count = ParameterCount.of(structure, currency);
        int channels = ffn(structure).size();
        double ffn = 3 * rows * 128.0 * (channels - 160);
        double heads = rows * 2 * (4 * 128 * 16.0 + 2 * 16.0 * positions);

        assertThat(currency.amount(count.dense())).isCloseTo(DENSE, within(1e-12));
        assertThat(currency.amount(count.under(first(Map.of("ffn.0", 160)))))
                .isCloseTo(DENSE - 1.5e-9 * ffn, within(1e-12));
        assertThat(currency.amount(count.under(first(Map.of("heads.1", 6)))))
                .isCloseTo(DENSE - 1.5e-9 * heads, within(1e-12));
        assertThat(currency.amount(count.under(new Plan("", Map.of(), new int[] {0, 1, 2, 3, 4}, null))))
                .isCloseTo(
                        DENSE
                                - 1.5e-9 * 3 * rows * 128.0 * channels
                                - 1.5e-9 * rows * 8 * (4 * 128 * 16.0 + 2 * 16.0 * positions),
                        within(1e-12));
    }

    private static Dimension ffn(Structure structure) {
        return structure.dimensions().stream()
                .filter(dimension -> dimension.role() == Role.FFN)
                .findFirst()
                .orElseThrow();
    }

    @ParameterizedTest
    @EnumSource(Scope.class)
    void aTimeIsNotExceededAndNothingIsPrunedForNothing(Scope scope) {
        Structure structure = TestModels.structure("stories-llama");
        TimeCurrency currency = currency(PREFILL, 1, TimeCurrencyTest::byWork);
        for (int seed = 0; seed < 5; seed++) {
            Scores scores = new RandomImportance(seed).score(structure, Log.NONE);
            double target = DENSE - 0.002 * (seed + 1);
            Budget budget = budget(target, currency).withScope(scope);
            Allocation found = Allocation.of(structure, scores, budget, "", Log.NONE);

            // A step of channels, the smallest that is timed: 16 of them in three products.
            double step = 1e-9 * 3 * 32 * 128 * 24;
            assertThat(budget.measure(found.after())).isBetween(target - step, target);
        }
    }

    @ParameterizedTest
    @EnumSource(Scope.class)
    void sizesThatAreAsSlowAsLargerOnesAreNeverChosen(Scope scope) {
        Structure structure = TestModels.structure("stories-llama");
        TimeCurrency currency = currency(PREFILL, 1, TimeCurrencyTest::padded);
        Scores scores = new RandomImportance(1).score(structure, Log.NONE);
        Budget budget = budget(DENSE - 0.03, currency).withScope(scope);
        Plan plan = Allocation.of(structure, scores, budget, "", Log.NONE).plan();

        assertThat(plan.keep().keySet()).anyMatch(name -> name.startsWith("ffn"));
        plan.keep()
                .forEach((name, kept) -> assertThat(name.startsWith("ffn") ? kept.length % 64 : 0)
                        .as(name + " keeps " + kept.length)
                        .isZero());
    }

    @Test
    void roundingThatIsAskedForStaysInForce() {
        Structure structure = TestModels.structure("stories-llama");
        Scores scores = new RandomImportance(1).score(structure, Log.NONE);
        Budget budget = budget(DENSE - 0.008, currency(PREFILL, 1, TimeCurrencyTest::byWork))
                .withRounding(48, 2);
        Plan plan = Allocation.of(structure, scores, budget, "", Log.NONE).plan();

        assertThat(plan.keep()).isNotEmpty();
        plan.keep()
                .forEach((name, kept) -> assertThat(kept.length % (name.startsWith("ffn") ? 48 : 2))
                        .isZero());
    }

    @Test
    void theLeastTimeIsTold() {
        Structure structure = TestModels.structure("stories-llama");
        Budget budget = budget(0.01, currency(PREFILL, 1, TimeCurrencyTest::byWork));

        assertThatThrownBy(() -> Allocation.check(structure, budget))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("10.00 ms cannot be reached by pruning heads, ffn: at least ");
        assertThatThrownBy(() -> Allocation.check(structure, budget(0.2, (TimeCurrency) budget.currency())))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("there is nothing to do: the model already has only 100.0 ms");
    }

    @Test
    void aMissedTimeCorrectsWhatIsSaved() {
        Timing timing = new Timing(TestModels.runtime(), TestModels.file("stories-llama"), Log.NONE);
        Budget budget = budget(0.08, currency(PREFILL, 1, TimeCurrencyTest::byWork));

        assertThat(timing.corrected(budget, 0.08, 0.0839)).isEmpty();
        assertThat(timing.corrected(budget, 0.08, 0.0761)).isEmpty();
        TimeCurrency slow = (TimeCurrency)
                timing.corrected(budget, 0.08, 0.09).orElseThrow().currency();
        assertThat(slow.factor()).isCloseTo(0.5, within(1e-12));
        TimeCurrency fast = (TimeCurrency)
                timing.corrected(budget.in(slow), 0.08, 0.07).orElseThrow().currency();
        assertThat(fast.factor()).isCloseTo(0.75, within(1e-12));
        assertThat(timing.corrected(budget, 0.08, 0.11)).as("nothing was saved").isEmpty();
    }

    @Test
    void productsOfOtherFormsAreFound() {
        assertThat(forms("llama-g16-e-int4")).contains(Form.BLOCKS, Form.SCORES, Form.ACTIVATIONS);
        assertThat(forms("gpt2-g-merged")).contains(Form.MATRIX, Form.SCORES);
        assertThat(forms("fused-experts")).contains(Form.ACTIVATIONS);
        assertThat(forms("hybrid-conv")).contains(Form.MATRIX);
        assertThat(Products.of(TestModels.structure("llama-g16-e-fp16"), PREFILL))
                .anyMatch(product -> product.operand().half());
    }

    private static List<Form> forms(String model) {
        return Products.of(TestModels.structure(model), PREFILL).stream()
                .map(product -> product.operand().form())
                .distinct()
                .toList();
    }

    /** Few runs of small products, whose times are not looked at. */
    @ParameterizedTest
    @CsvSource({
        "MATRIX, false, 0, 0",
        "MATRIX, true, 0, 0",
        "BLOCKS, false, 4, 32",
        "ACTIVATIONS, false, 0, 0",
        "SCORES, false, 0, 0"
    })
    void everyFormRuns(Form form, boolean half, int bits, int block) {
        ProductShape shape = new ProductShape(
                form == Form.ACTIVATIONS || form == Form.SCORES ? 2 : 1,
                3,
                64,
                32,
                new ProductShape.Operand(form, half, bits, block, 0));

        assertThat(new GraphTimer(TestModels.runtime()).seconds(shape)).isPositive();
    }
}
