// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.TestModels;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.LoweredLinear;
import io.onnxprune.calibrate.Statistics;
import io.onnxprune.calibrate.Tap;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Structure;
import io.onnxprune.obs.Damping;
import io.onnxprune.obs.LeastSquares;
import io.onnxprune.obs.RemovalOrder;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.plan.Scores;
import io.onnxprune.rewrite.PrunedState;
import io.onnxprune.runtime.HostTensor;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

@Tag("ort")
class ObsImportanceTest {
    private static final ObsSelection EXACT = new ObsSelection(ObsSelection.Order.EXACT, 0.01);

    @TempDir
    private Path folder;

    private Scores scores(PrunedState state, boolean loss) {
        Calibrator calibrator = Runs.calibrator(state.model(), folder);
        return new ObsImportance(
                        new PrunedModel(
                                state,
                                LinearLayers.of(state.structure()),
                                calibrator,
                                (model, taps) -> Statistics.measure(model, Runs.rows(30), taps),
                                folder,
                                Log.NONE),
                        PruneSet.standard(),
                        new ObsImportance.Settings(
                                loss ? ObsImportance.Curvature.LOSS : ObsImportance.Curvature.OUTPUT,
                                ObsImportance.Members.CONSUMERS,
                                EXACT))
                .score(state.structure(), Log.NONE);
    }

    /**
     * The unit with the smallest score is the one whose independent removal leaves the smallest error, found by trying
     * all.
     */
    @Test
    void theLeastImportantUnitIsTheOneThatIsCompensatedBest() {
        Structure structure = TestModels.structure("llama-gqa-d");
        PrunedState state = PrunedState.whole(structure, Plan.keepAll(""));
        Scores scores = scores(state, false);
        LinearLayers layers = LinearLayers.of(structure);
        Calibrator calibrator = Runs.calibrator(state.model(), folder);
        for (Dimension dimension : structure.dimensions()) {
            double[] units = scores.units().get(dimension.name());
            if (units == null) {
                continue;
            }
            LinearLayer layer = layers.of(dimension).get(0);
            LoweredLinear linear = calibrator.linears().stream()
                    .filter(each -> each.weight().equals(layer.weight().name()))
                    .findFirst()
                    .orElseThrow();
            double[] independent = independent(calibrator, linear, layer, dimension);
            assertThat(smallest(units)).as(dimension.name()).isEqualTo(smallest(independent));
        }
        assertThat(scores.units()).hasSize(6);
    }

    private static double[] independent(
            Calibrator calibrator, LoweredLinear linear, LinearLayer layer, Dimension dimension) {
        Map<Tap, HostTensor> sums = new HashMap<>();
        Tap tap = new Tap.SecondMoment(linear.input());
        calibrator.gather(Runs.rows(30), List.of(tap), sums::put);
        int n = layer.inputs();
        int[] unitOf = layer.units(dimension);
        try (Matrix a = Matrix.of(sums.get(tap).asFloats(), n, n);
                Matrix w = WeightStore.read(layer.weight().constant(), layer.axis())) {
            double mean = IntStream.range(0, n)
                    .mapToDouble(i -> a.get(i, i))
                    .average()
                    .orElseThrow();
            double[] errors = new double[dimension.size()];
            for (int unit = 0; unit < errors.length; unit++) {
                int pruned = unit;
                int[] kept = IntStream.range(0, n)
                        .filter(row -> unitOf[row] != pruned)
                        .toArray();
                Damping damping = new Damping(0.01, 480, "test", Log.NONE);
                try (Matrix after = LeastSquares.keep(a, w, kept, damping);
                        Matrix damped = a.copy()) {
                    IntStream.range(0, n).forEach(i -> damped.add(i, i, 0.01 * mean));
                    errors[unit] = Runs.error(damped, w, after);
                }
            }
            return errors;
        }
    }

    private static int smallest(double[] values) {
        return IntStream.range(0, values.length)
                .reduce((best, i) -> values[i] < values[best] ? i : best)
                .orElseThrow();
    }

    @Test
    void withTheCurvatureOfTheLossLayersAreComparedByIt() {
        Structure structure = TestModels.structure("stories-llama");
        PrunedState state = PrunedState.whole(structure, Plan.keepAll(""));
        Scores output = scores(state, false);
        Scores loss = scores(state, true);

        assertThat(loss.units().keySet()).isEqualTo(output.units().keySet()).hasSize(12);
        loss.units().forEach((name, units) -> {
            assertThat(Arrays.stream(units).distinct()).hasSize(units.length);
            assertThat(units).isNotEqualTo(output.units().get(name));
        });
    }

    @Test
    void aPrunedModelScoresItsRemainingUnits() {
        Structure structure = TestModels.structure("llama-gqa-d");
        Plan plan = Runs.plan(structure, 0.2, "heads", "ffn");
        Scores scores = scores(PrunedState.of(structure, plan, Map.of()), true);
        for (Dimension dimension : structure.dimensions()) {
            double[] units = scores.units().get(dimension.name());
            if (units != null) {
                assertThat(units).hasSize(dimension.size());
                int[] kept = Runs.kept(plan, dimension);
                assertThat(IntStream.of(kept).mapToDouble(unit -> units[unit]).distinct())
                        .hasSize(kept.length);
            }
        }
        assertThat(scores.units()).isNotEmpty();
    }

    @Test
    void scoresRiseInTheOrderOfRemovalByTheSlopesOfTheLowerHull() {
        RemovalOrder removal = new RemovalOrder(new int[] {3, 0, 2, 1}, new double[] {1, 5, 3, 10}, 0);
        double[] scores = ObsImportance.hull(7, new int[] {0, 2, 3, 5, 6}, removal);

        assertThat(scores[5]).isCloseTo(1, within(1e-12));
        assertThat(scores[0]).isCloseTo(4, within(1e-12));
        assertThat(scores[3]).isCloseTo(4, within(1e-12)).isGreaterThan(scores[0]);
        assertThat(scores[2]).isCloseTo(10, within(1e-12));
        assertThat(scores[6]).isGreaterThan(scores[2]);
    }

    @Test
    void theHullLiesBelowAllPartialSumsAndTouchesTheLast() {
        Random random = new Random(2);
        for (int trial = 0; trial < 50; trial++) {
            double[] costs =
                    random.doubles(20).map(cost -> cost < 0.2 ? 0 : cost).toArray();
            int[] order = IntStream.range(0, 20).toArray();
            double[] scores =
                    ObsImportance.hull(21, IntStream.range(0, 21).toArray(), new RemovalOrder(order, costs, 0));
            double sum = 0;
            double below = 0;
            for (int i = 0; i < 20; i++) {
                sum += costs[i];
                below += scores[i];
                assertThat(below).isLessThanOrEqualTo(sum + 1e-9);
                assertThat(scores[i + 1]).isGreaterThan(scores[i]);
            }
            assertThat(below).isCloseTo(sum, within(1e-9));
        }
    }
}
