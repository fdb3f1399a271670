// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UsageException;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Role;
import io.onnxprune.dims.Structure;
import io.onnxprune.plan.Budget.Scope;
import io.onnxprune.plan.Schedule.Shape;
import java.util.Arrays;
import java.util.List;
import java.util.OptionalDouble;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/** stories-llama: 6 layers of 8 heads (65 536 parameters together) and 344 channels (384 each), 1 318 528 in all. */
@Tag("ort")
class ScheduleTest {
    private static final int CHANNELS = 344;
    private static final long WHOLE = 1_318_528;
    private static final long CHANNEL = 384;

    @Test
    void theLogarithmRisesAsInThePaper() {
        Schedule log = new Schedule(Shape.LOG, OptionalDouble.of(0.0625));
        double sum = 0;
        for (int layer = 0; layer < 32; layer++) {
            sum += 0.0625 + (0.25 - 0.0625) * log.progress(layer, 32);
        }

        assertThat(log.progress(0, 32)).isZero();
        assertThat(log.progress(31, 32)).isEqualTo(1);
        // The authors' example for 20 % of 32 layers.
        assertThat(sum / 32).isCloseTo(0.2004, within(5e-5));
    }

    @ParameterizedTest
    @CsvSource({"LOG,0.1", "LOG,0.02", "LINEAR,0", "LINEAR,0.15", "LOG,0.4", "LINEAR,0.5"})
    void channelsArePrunedByTheFormula(Shape shape, double first) {
        double ratio = 0.2;
        int[] lost = lostChannels(
                allocate(PruneSet.parse(List.of("ffn")), ratio, new Schedule(shape, OptionalDouble.of(first))));

        double[] progress = new double[6];
        Arrays.setAll(progress, i -> shape == Shape.LOG ? Math.log(i + 1) / Math.log(6) : i / 5.0);
        double mean = ratio * WHOLE / (6 * CHANNELS * CHANNEL);
        double last = first + (mean - first) / Arrays.stream(progress).average().orElseThrow();
        for (int layer = 0; layer < 6; layer++) {
            double share = first + (last - first) * progress[layer];
            assertThat((double) lost[layer]).isCloseTo(share * CHANNELS, within(1.001));
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"LOG", "LINEAR"})
    void theTargetIsMetAndLaterLayersLoseMore(Shape shape) {
        for (double ratio : new double[] {0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.8, 0.86}) {
            Schedule usual = new Schedule(shape, OptionalDouble.empty());
            Allocation allocation = allocate(PruneSet.standard(), ratio, usual);

            assertThat((double) allocation.after().parameters())
                    .as("%s %s", shape, ratio)
                    .isCloseTo(WHOLE * (1 - ratio), within(CHANNEL / 2.0));
            assertThat(lostChannels(allocation)).isSorted();
            assertThat(lostHeads(allocation)).isSorted();
            assertThat(lostChannels(allocation)[5]).isGreaterThan(lostChannels(allocation)[0]);
        }
    }

    @Test
    void theFirstRatioIsAFixedPartOfTheMeanByDefault() {
        int[] lost = lostChannels(
                allocate(PruneSet.parse(List.of("ffn")), 0.2, new Schedule(Shape.LINEAR, OptionalDouble.empty())));

        double mean = 0.2 * WHOLE / (6 * CHANNELS * CHANNEL);
        assertThat((double) lost[0]).isCloseTo(0.3125 * mean * CHANNELS, within(1.001));
    }

    @Test
    void aRatioAboveOneIsClippedAndOtherLayersCompensate() {
        PruneSet channels = PruneSet.parse(List.of("ffn"));
        double all = 6.0 * CHANNELS * CHANNEL / WHOLE;
        Allocation most = allocate(channels, 0.8 * all, new Schedule(Shape.LINEAR, OptionalDouble.of(0)));
        int[] lost = lostChannels(most);

        assertThat((double) most.after().parameters()).isCloseTo(WHOLE * (1 - 0.8 * all), within(CHANNEL / 2.0));
        // r₁ would be 1.6. The later layers keep one channel, and the others lose more than the formula says.
        assertThat(lost).isSorted();
        assertThat(lost[0]).isLessThanOrEqualTo(1);
        assertThat(lost[5]).isEqualTo(CHANNELS - 1);
        assertThat(lost[2]).isGreaterThan((int) (0.4 * 1.6 * CHANNELS));

        // Where even that is not enough, the ratio of the first layer rises too.
        Allocation nearlyAll = allocate(channels, 0.9 * all, new Schedule(Shape.LINEAR, OptionalDouble.of(0)));
        assertThat(lostChannels(nearlyAll)[0]).isBetween(100, 250);
        assertThat(Arrays.copyOfRange(lostChannels(nearlyAll), 1, 6)).containsOnly(CHANNELS - 1);
    }

    @Test
    void aFirstRatioAboveTheTargetMakesRatiosDecrease() {
        Allocation allocation = allocate(PruneSet.standard(), 0.3, new Schedule(Shape.LOG, OptionalDouble.of(0.6)));

        int[] lost = lostChannels(allocation);
        for (int layer = 1; layer < 6; layer++) {
            assertThat(lost[layer]).isLessThanOrEqualTo(lost[layer - 1]);
        }
        assertThat(lost[0]).isGreaterThan(lost[5] + CHANNELS / 4);
        assertThat((double) allocation.after().parameters()).isCloseTo(WHOLE * 0.7, within(CHANNEL / 2.0));

        // A first ratio that exceeds the target by itself is reduced.
        Allocation little =
                allocate(PruneSet.parse(List.of("ffn")), 0.02, new Schedule(Shape.LINEAR, OptionalDouble.of(0.99)));
        assertThat(Arrays.copyOfRange(lostChannels(little), 1, 6)).containsOnly(0);
        assertThat((double) little.after().parameters()).isCloseTo(WHOLE * 0.98, within(CHANNEL / 2.0));
    }

    @Test
    void theScheduleCountsOnlyLayersThatMayBePruned() {
        Structure structure = TestModels.structure("stories-llama");
        Budget budget = Budget.ofRatio(PruneSet.parse(List.of("ffn")), 0.12)
                .withProtection(List.of("ffn.2"), 1, 1)
                .withSchedule(new Schedule(Shape.LINEAR, OptionalDouble.of(0.1)));
        Plan plan = Allocation.of(structure, scores(structure), budget, "", Log.NONE)
                .plan();

        // Three of six layers are not protected: 0.1, the mean, and twice the mean minus 0.1.
        double mean = 0.12 * WHOLE / (3 * CHANNELS * CHANNEL);
        assertThat(plan.keep()).containsOnlyKeys("ffn.1", "ffn.3", "ffn.4");
        assertThat((double) plan.keep().get("ffn.1").length).isCloseTo(0.9 * CHANNELS, within(1.001));
        assertThat((double) plan.keep().get("ffn.3").length).isCloseTo((1 - mean) * CHANNELS, within(1.001));
        assertThat((double) plan.keep().get("ffn.4").length).isCloseTo((1.1 - 2 * mean) * CHANNELS, within(1.001));
    }

    @Test
    void dimensionsOfNoLayerLoseTheMeanRatio() {
        Structure structure = TestModels.structure("stories-llama");
        Budget budget = Budget.ofRatio(PruneSet.parse(List.of("ffn", "hidden")), 0.4)
                .withSchedule(new Schedule(Shape.LINEAR, OptionalDouble.of(0.05)));
        Plan plan = Allocation.of(structure, scores(structure), budget, "", Log.NONE)
                .plan();

        double mean = Arrays.stream(lost(structure, plan, Role.FFN)).average().orElseThrow() / CHANNELS;
        assertThat(1 - plan.keep().get("hidden").length / 128.0).isCloseTo(mean, within(0.01));
    }

    @Test
    void earlierStepsScaleTheFirstRatio() {
        Budget budget =
                Budget.ofRatio(PruneSet.standard(), 0.4).withSchedule(new Schedule(Shape.LOG, OptionalDouble.of(0.2)));

        assertThat(budget.atStep(1, 4, new ParameterCount.Size(1000, 4000))
                        .schedule()
                        .first())
                .hasValue(0.05);
        assertThat(budget.atStep(4, 4, new ParameterCount.Size(1000, 4000))).isEqualTo(budget);
    }

    @ParameterizedTest
    @ValueSource(doubles = {-0.01, 1, 1.5, Double.NaN})
    void firstRatiosAreBelowOne(double first) {
        assertThatThrownBy(() -> new Schedule(Shape.LOG, OptionalDouble.of(first)))
                .isInstanceOf(UsageException.class)
                .hasMessage("first-ratio must be at least 0 and less than 1, not " + first);
    }

    @Test
    void settingsWithoutEffectAreRefused() {
        assertThatThrownBy(() -> new Schedule(Shape.UNIFORM, OptionalDouble.of(0.1)))
                .isInstanceOf(UsageException.class)
                .hasMessageContaining("no effect in schedule uniform");
        Budget global = Budget.ofRatio(PruneSet.standard(), 0.1).withScope(Scope.GLOBAL);
        assertThatThrownBy(() -> global.withSchedule(new Schedule(Shape.LOG, OptionalDouble.empty())))
                .isInstanceOf(UsageException.class)
                .hasMessageContaining("schedule log has no effect in scope global");
    }

    private static Scores scores(Structure structure) {
        return new RandomImportance(5).score(structure, Log.NONE);
    }

    private static Allocation allocate(PruneSet prune, double ratio, Schedule schedule) {
        Structure structure = TestModels.structure("stories-llama");
        Budget budget = Budget.ofRatio(prune, ratio).withSchedule(schedule);
        return Allocation.of(structure, scores(structure), budget, "", Log.NONE);
    }

    private static int[] lostChannels(Allocation allocation) {
        return lost(TestModels.structure("stories-llama"), allocation.plan(), Role.FFN);
    }

    private static int[] lostHeads(Allocation allocation) {
        return lost(TestModels.structure("stories-llama"), allocation.plan(), Role.HEADS);
    }

    private static int[] lost(Structure structure, Plan plan, Role role) {
        return structure.dimensions().stream()
                .filter(dimension -> dimension.role() == role)
                .mapToInt(dimension -> lost(dimension, plan))
                .toArray();
    }

    private static int lost(Dimension dimension, Plan plan) {
        int[] kept = plan.keep().get(dimension.name());
        return kept == null ? 0 : dimension.size() - kept.length;
    }
}
