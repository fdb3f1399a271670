// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.algebra.Matrix;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.stream.IntStream;
import org.apache.commons.math3.linear.RealMatrix;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class DowndateTest {
    private static final double SHARE = 0.01;

    /** Sizes of units: single channels, small, empty and larger than a small unit. */
    private static final int[] SIZES = {1, 1, 20, 3, 1, 0, 17, 1, 5, 1, 2, 1, 1, 16, 4};

    /** Random orders of removal, panels that are flushed often, seldom or never, with and without recomputation. */
    @ParameterizedTest
    @CsvSource({"1, 1000", "3, 1000", "30, 1000", "96, 1000", "2, 8", "96, 1"})
    void costsAreThoseOfTheOptimalWeights(int panel, int period) {
        for (boolean withGradients : new boolean[] {false, true}) {
            LayerProblem layer = Problems.layer(new Random(panel), 6, withGradients, 5, SIZES);
            RealMatrix a = Problems.damped(layer.a(), SHARE);
            double lambda = SHARE * Damping.meanDiagonal(layer.a());
            List<Integer> order =
                    new ArrayList<>(IntStream.range(0, SIZES.length).boxed().toList());
            Collections.shuffle(order, new Random(period));
            boolean[] removed = new boolean[layer.a().rows()];
            double before = 0;
            try (Downdate state = new Downdate(layer, lambda, panel, period, 0)) {
                for (int unit : order) {
                    double[] predicted = new double[SIZES.length];
                    state.addCosts(predicted, false);
                    double cost = state.remove(unit);

                    IntStream.of(layer.units().get(unit)).forEach(channel -> removed[channel] = true);
                    double total = totalCost(a, layer, removed);
                    assertThat(cost).isCloseTo(total - before, within(1e-9 * total));
                    assertThat(predicted[unit]).isCloseTo(cost, within(1e-9 * total));
                    before = total;
                    assertThat(state.residual()).isLessThan(1e-10);
                }
                double[] noneRemaining = new double[SIZES.length];
                state.addCosts(noneRemaining, false);
                assertThat(noneRemaining).containsOnly(0);
            }
        }
    }

    /** SlimGPT's scores by their definition: the columns of a unit one after another, without updating the weights. */
    @Test
    void groupedCostsLeaveOutTheUpdatesWithinAUnit() {
        LayerProblem layer = Problems.layer(new Random(4), 6, false, 5, SIZES);
        double lambda = SHARE * Damping.meanDiagonal(layer.a());
        RealMatrix inverse = Problems.inverse(Problems.damped(layer.a(), SHARE));
        double[] expected = new double[SIZES.length];
        for (int unit = 0; unit < SIZES.length; unit++) {
            int[] channels = layer.units().get(unit);
            for (int i = 0; i < channels.length; i++) {
                // The diagonal of the inverse after the channels before it are eliminated.
                int[] upTo = Arrays.copyOf(channels, i + 1);
                double denominator =
                        1 / Problems.inverse(inverse.getSubMatrix(upTo, upTo)).getEntry(i, i);
                for (double weight : Problems.real(layer.w()).getRow(channels[i])) {
                    expected[unit] += 0.5 * weight * weight / denominator;
                }
            }
        }
        double[] exact = new double[SIZES.length];
        double[] grouped = new double[SIZES.length];
        try (Downdate state = new Downdate(layer, lambda)) {
            state.addCosts(exact, false);
            state.addCosts(grouped, true);
        }

        assertThat(grouped).containsExactly(expected, within(1e-9));
        for (int unit = 0; unit < SIZES.length; unit++) {
            assertThat(Math.abs(grouped[unit] - exact[unit]) > 1e-3).isEqualTo(SIZES[unit] > 1);
        }
    }

    /**
     * As many tokens as channels and almost no damping: rounding errors grow, are detected, and the state is
     * recomputed.
     */
    @Test
    void inaccurateStatesAreRecomputed() {
        int n = 300;
        Random random = new Random(1);
        RealMatrix x = Problems.random(random, n + 1, n);
        for (int i = 0; i <= n; i++) {
            for (int j = 1; j < n; j++) {
                x.setEntry(i, j, x.getEntry(i, j - 1) + 1e-5 * x.getEntry(i, j));
            }
        }
        List<int[]> units = IntStream.range(0, n).mapToObj(i -> new int[] {i}).toList();
        try (Matrix a = Problems.matrix(x.transpose().multiply(x));
                Matrix w = Problems.matrix(Problems.random(random, n, 4))) {
            LayerProblem layer = new LayerProblem(a, w, null, units);
            double lambda = 1e-12 * Damping.meanDiagonal(a);
            double[] residual = new double[2];
            for (int guarded = 0; guarded < 2; guarded++) {
                try (Downdate state = new Downdate(layer, lambda, 16, guarded == 1 ? 16 : n, 1e-9)) {
                    for (int unit = 0; unit < n - 20; unit++) {
                        state.remove(unit);
                    }
                    residual[guarded] = state.residual();
                    assertThat(state.worstResidual()).isGreaterThanOrEqualTo(guarded == 1 ? 1e-6 : 0);
                }
            }
            assertThat(residual[0]).isGreaterThan(1e-4);
            assertThat(residual[1]).isLessThan(residual[0] / 10);
        }
    }

    private static double totalCost(RealMatrix a, LayerProblem layer, boolean[] removed) {
        int[] kept = IntStream.range(0, removed.length).filter(i -> !removed[i]).toArray();
        try (Matrix best = LeastSquares.keep(layer.a(), layer.w(), kept, Problems.damping(SHARE))) {
            return Problems.loss(a, Problems.real(best).subtract(Problems.real(layer.w())), layer.g());
        }
    }
}
