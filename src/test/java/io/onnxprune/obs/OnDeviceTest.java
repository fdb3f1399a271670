// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.device.StandInCuda;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.function.Supplier;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Every method on a GPU, whose libraries are stand-ins, gives what it gives on the host. */
class OnDeviceTest {
    private static final double SHARE = 0.01;
    private static final double TOLERANCE = 1e-9;
    private static final int[] SIZES = {1, 1, 20, 3, 1, 0, 70, 1, 5, 1, 2, 1, 1, 16, 4};

    @BeforeEach
    void start() {
        StandInCuda.open();
    }

    @AfterEach
    void deselect() {
        Blas.useHost();
    }

    /** The result of work on the host, and that of the same work on the GPU. */
    private static <T> List<T> both(Supplier<T> work) {
        Blas.useHost();
        T onHost = work.get();
        Blas.useDevice(StandInCuda.open(), 2);
        T onDevice = work.get();
        return List.of(onHost, onDevice);
    }

    private static void assertSame(Supplier<Matrix> work) {
        List<double[][]> results = both(() -> {
            try (Matrix result = work.get()) {
                return Problems.real(result).getData();
            }
        });
        for (int i = 0; i < results.get(0).length; i++) {
            assertThat(results.get(1)[i]).containsExactly(results.get(0)[i], within(TOLERANCE));
        }
    }

    @ParameterizedTest
    @CsvSource({"1, 1000, 0", "3, 1000, 1e-6", "30, 1000, 1e-6", "96, 1000, 1e-6", "2, 8, 0", "96, 1, 1e-6"})
    void downdate(int panel, int period, double tolerance) {
        for (boolean withGradients : new boolean[] {false, true}) {
            LayerProblem layer = Problems.layer(new Random(panel), 6, withGradients, 5, SIZES);
            double lambda = SHARE * Damping.meanDiagonal(layer.a());
            List<Integer> order =
                    new ArrayList<>(IntStream.range(0, SIZES.length).boxed().toList());
            Collections.shuffle(order, new Random(period));
            List<List<double[]>> results = both(() -> {
                List<double[]> found = new ArrayList<>();
                try (Downdate state = new Downdate(layer, lambda, panel, period, tolerance)) {
                    for (int unit : order) {
                        for (boolean grouped : new boolean[] {false, true}) {
                            double[] costs = new double[SIZES.length];
                            state.addCosts(costs, grouped);
                            found.add(costs);
                        }
                        found.add(new double[] {state.remove(unit)});
                        assertThat(state.residual()).isLessThan(1e-10);
                    }
                }
                return found;
            });
            for (int i = 0; i < results.get(0).size(); i++) {
                double[] expected = results.get(0).get(i);
                for (int unit = 0; unit < expected.length; unit++) {
                    assertThat(results.get(1).get(i)[unit])
                            .isCloseTo(expected[unit], within(TOLERANCE * Math.max(1, expected[unit])));
                }
            }
        }
    }

    @Test
    void onlyTheSelectedPlaceIsUsed() {
        StandInCuda.assumeStandIn();
        LayerProblem layer = Problems.layer(new Random(1), 6, true, 20);
        Damping damping = Problems.damping(SHARE);
        StandInCuda.transfers();
        Newton.step(layer.a(), layer.w(), layer.g(), damping).close();
        assertThat(StandInCuda.transfers()).containsOnly(0);
        Blas.useDevice(StandInCuda.open(), 2);
        Newton.step(layer.a(), layer.w(), layer.g(), damping).close();
        assertThat(StandInCuda.transfers()[0]).isPositive();
    }

    /** Two rows of numbers and three single ones for each removed channel; the work between two flushes adds none. */
    @Test
    void removingAChannelCopiesTwoRows() {
        StandInCuda.assumeStandIn();
        int n = 200;
        int[] ones = new int[n];
        Arrays.fill(ones, 1);
        LayerProblem layer = Problems.layer(new Random(2), 6, false, 0, ones);
        Blas.useDevice(StandInCuda.open(), 2);
        try (Downdate state = new Downdate(layer, 1)) {
            state.remove(0);
            StandInCuda.transfers();
            for (int unit = 1; unit < 150; unit++) {
                state.addCosts(new double[n], false);
                state.remove(unit);
                long[] copies = StandInCuda.transfers();
                assertThat(copies[0]).isEqualTo(5);
                assertThat(copies[1]).isEqualTo((2 * (n - unit - 1) + 3) * 8L);
            }
        }
    }

    @ParameterizedTest
    @EnumSource(GreedyRemoval.Rule.class)
    void removal(GreedyRemoval.Rule rule) {
        Random random = new Random(3);
        List<LayerProblem> layers = List.of(
                Problems.layer(random, 6, true, 5, 1, 3, 20, 1, 2, 18),
                Problems.layer(random, 4, false, 0, 1, 1, 1, 1, 1, 1));
        List<RemovalOrder> results = both(() -> GreedyRemoval.of(layers, 4, rule, Problems.damping(SHARE)));

        assertThat(results.get(1).order()).isEqualTo(results.get(0).order());
        assertThat(results.get(1).costs()).containsExactly(results.get(0).costs(), within(TOLERANCE * 1000));
    }

    @Test
    void leastSquares() {
        LayerProblem layer = Problems.layer(new Random(5), 6, true, 5, 4, 4, 4, 4);
        int[] kept =
                IntStream.range(0, layer.a().rows()).filter(i -> i % 3 != 1).toArray();
        int[] keptOutputs = {0, 2, 3, 5};
        Damping damping = Problems.damping(SHARE);
        assertSame(() -> LeastSquares.keep(layer.a(), layer.w(), kept, damping));
        assertSame(() -> LeastSquares.keep(layer.a(), layer.g(), layer.w(), kept, keptOutputs, damping, damping));
        assertSame(() -> LeastSquares.independentUpdates(
                layer.a(), layer.w(), layer.units().subList(1, 3), damping));
        assertSame(() -> LeastSquares.correction(layer.a(), layer.w(), kept, null, damping)
                .weights());
        assertSame(() -> Newton.step(layer.a(), layer.w(), layer.g(), damping));
    }

    @Test
    void sparsity() {
        LayerProblem layer = Problems.layer(new Random(6), 6, false, 280);
        for (Pattern pattern : List.of(new Pattern.Unstructured(0.5), new Pattern.Grouped(2, 4))) {
            assertSame(() -> LayerSparsifier.sparseGpt(layer.a(), layer.w(), pattern, Problems.damping(SHARE)));
        }
    }

    @ParameterizedTest
    @ValueSource(ints = {0, 1, 3, 10, 1000})
    void elements(int limit) {
        // Rounding errors change the number of conjugate-gradient iterations when the problem is ill-conditioned.
        double strong = 0.5;
        int n = 9;
        int out = 5;
        LayerProblem layer = Problems.layer(new Random(7), out, true, n);
        BitSet[] zeros = new BitSet[out];
        Random random = new Random(8);
        for (int j = 0; j < out; j++) {
            zeros[j] = new BitSet();
            for (int i = 0; i < n; i++) {
                zeros[j].set(i, random.nextInt(out) <= j);
            }
        }
        assertSame(() -> {
            try (KroneckerFactor inputs = KroneckerFactor.of(layer.a().copy(), Problems.damping(strong));
                    KroneckerFactor outputs = KroneckerFactor.of(layer.g().copy(), Problems.damping(strong))) {
                Matrix w = layer.w().transposed();
                if (limit == 0) {
                    ElementUpdate.together(inputs, outputs, w, zeros);
                } else {
                    ElementUpdate.inGroups(inputs, outputs, w, zeros, limit);
                }
                return w;
            }
        });
    }

    @Test
    void factorOfTheHessian() {
        LayerProblem layer = Problems.layer(new Random(9), 6, false, 20);
        List<double[]> results = both(() -> {
            try (KroneckerFactor factor = KroneckerFactor.of(layer.a().copy(), Problems.damping(SHARE))) {
                double[] weights = factor.weights();
                double[] forms = factor.halfForms(layer.w());
                return IntStream.range(0, weights.length + forms.length)
                        .mapToDouble(i -> i < weights.length ? weights[i] : forms[i - weights.length])
                        .toArray();
            }
        });
        for (int i = 0; i < results.get(0).length; i++) {
            double expected = results.get(0)[i];
            assertThat(results.get(1)[i]).isCloseTo(expected, within(TOLERANCE * Math.max(1, expected)));
        }
    }
}
