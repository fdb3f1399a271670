// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.diag.UserException;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.stream.IntStream;
import org.apache.commons.math3.linear.LUDecomposition;
import org.apache.commons.math3.linear.MatrixUtils;
import org.apache.commons.math3.linear.RealMatrix;
import org.junit.jupiter.api.Test;

class LeastSquaresTest {
    private static final int[] KEPT = {0, 2, 3, 6};

    @Test
    void keptWeightsAreTheOptimalOnes() {
        LayerProblem layer = Problems.layer(new Random(5), 3, true, 7);
        boolean[] removed = {false, true, false, false, true, true, false};

        RealMatrix best = Problems.bestChange(Problems.damped(layer.a(), 0.1), layer, removed)
                .add(Problems.real(layer.w()));

        try (Matrix found = LeastSquares.keep(layer.a(), layer.w(), KEPT, Problems.damping(0.1))) {
            assertClose(Problems.real(found), best);
        }
    }

    /** Compared with the normal equations over the Kronecker product of both second moments. */
    @Test
    void inputsAndOutputsArePrunedJointly() {
        LayerProblem layer = Problems.layer(new Random(6), 5, true, 7);
        int[] keptOutputs = {0, 1, 4};
        RealMatrix a = Problems.damped(layer.a(), 0.1);
        RealMatrix g = Problems.damped(layer.g(), 0.2);
        RealMatrix w = Problems.real(layer.w());
        boolean[][] removed = new boolean[7][5];
        for (int i = 0; i < 7; i++) {
            for (int j = 0; j < 5; j++) {
                int row = i;
                int column = j;
                removed[i][j] = IntStream.of(KEPT).noneMatch(k -> k == row)
                        || IntStream.of(keptOutputs).noneMatch(k -> k == column);
            }
        }

        RealMatrix best = Problems.bestChange(a, g, w, removed).add(w);

        try (Matrix found = LeastSquares.keep(
                layer.a(), layer.g(), layer.w(), KEPT, keptOutputs, Problems.damping(0.1), Problems.damping(0.2))) {
            assertClose(Problems.real(found), best);
        }
    }

    /** The optimal change of each removed unit, added up, with zeros in the removed rows. */
    @Test
    void independentUpdatesAddUp() {
        LayerProblem layer = Problems.layer(new Random(8), 3, false, 1, 2, 1, 3);
        RealMatrix a = Problems.damped(layer.a(), 0.1);
        RealMatrix expected = Problems.real(layer.w());
        for (int unit : new int[] {0, 2}) {
            boolean[] removed = new boolean[7];
            IntStream.of(layer.units().get(unit)).forEach(channel -> removed[channel] = true);
            expected = expected.add(Problems.bestChange(a, layer, removed));
        }
        List<int[]> removedUnits = List.of(layer.units().get(0), layer.units().get(2));
        for (int[] unit : removedUnits) {
            for (int channel : unit) {
                expected.setRow(channel, new double[3]);
            }
        }

        try (Matrix found =
                LeastSquares.independentUpdates(layer.a(), layer.w(), removedUnits, Problems.damping(0.1))) {
            assertClose(Problems.real(found), expected);
        }
    }

    @Test
    void keepingEverythingChangesNothing() {
        LayerProblem layer = Problems.layer(new Random(5), 3, false, 4);

        try (Matrix found = LeastSquares.keep(layer.a(), layer.w(), new int[] {0, 1, 2, 3}, Problems.damping(0.5))) {
            assertThat(Problems.real(found)).isEqualTo(Problems.real(layer.w()));
        }
    }

    @Test
    void deadChannelsAreNotChanged() {
        LayerProblem layer = Problems.layer(new Random(5), 3, false, 4);
        for (int j = 0; j < 4; j++) {
            layer.a().set(1, j, 0);
            layer.a().set(j, 1, 0);
        }

        try (Matrix found = LeastSquares.keep(layer.a(), layer.w(), new int[] {0, 1, 2}, Problems.damping(0))) {
            assertThat(Problems.real(found).getRow(1))
                    .isEqualTo(Problems.real(layer.w()).getRow(1));
            assertThat(Problems.real(found).getRow(3)).containsOnly(0);
            assertThat(Problems.real(found).getRow(0))
                    .isNotEqualTo(Problems.real(layer.w()).getRow(0));
        }
    }

    /** Compared with the normal equations over the inputs, with and without a column of ones. */
    @Test
    void correctionIsTheRidgeRegressionOfTheError() {
        Random random = new Random(9);
        int tokens = 30;
        RealMatrix x = Problems.inputs(random, tokens, 7);
        x = x.add(MatrixUtils.createRealMatrix(tokens, 7).scalarAdd(0.7));
        RealMatrix e = Problems.random(random, tokens, 3).scalarAdd(1.5);
        RealMatrix part = x.getSubMatrix(range(tokens), KEPT);
        RealMatrix centered = part.subtract(means(part));
        RealMatrix[] moments = {part, centered};

        for (int withBias = 0; withBias < 2; withBias++) {
            RealMatrix inputs = moments[withBias];
            RealMatrix moment = inputs.transpose().multiply(inputs);
            double lambda = 0.01 * moment.getTrace() / KEPT.length;
            RealMatrix expected = new LUDecomposition(moment.add(
                            MatrixUtils.createRealIdentityMatrix(KEPT.length).scalarMultiply(lambda)))
                    .getSolver()
                    .solve(inputs.transpose().multiply(e));
            LeastSquares.Sums sums = withBias == 0 ? null : new LeastSquares.Sums(columnSums(x), columnSums(e), tokens);
            try (Matrix a = Problems.matrix(x.transpose().multiply(x));
                    Matrix c = Problems.matrix(x.transpose().multiply(e));
                    LeastSquares.Correction found = LeastSquares.correction(a, c, KEPT, sums, Problems.damping(0.01))) {
                RealMatrix weights = Problems.real(found.weights());
                assertClose(weights.getSubMatrix(KEPT, range(3)), expected);
                assertThat(weights.getRow(1)).containsOnly(0);
                assertThat(found.bias() == null).isEqualTo(withBias == 0);
                if (withBias == 1) {
                    RealMatrix left = e.subtract(part.multiply(expected));
                    assertThat(found.bias()).containsExactly(means(left).getRow(0), within(1e-9));
                }
            }
        }
    }

    @Test
    void statisticsThatAreNotFiniteAreNamed() {
        LayerProblem layer = Problems.layer(new Random(5), 3, false, 4);
        layer.a().set(1, 2, Double.NaN);

        assertThatThrownBy(() -> LeastSquares.keep(layer.a(), layer.w(), new int[] {0}, Problems.damping(0)))
                .isInstanceOf(UserException.class)
                .hasMessage("layer: the second moment of the inputs has numbers that are not finite");
    }

    private static void assertClose(RealMatrix found, RealMatrix expected) {
        assertThat(found.subtract(expected).getNorm()).isLessThan(1e-9 * (1 + expected.getNorm()));
    }

    private static double[] columnSums(RealMatrix x) {
        return x.preMultiply(onesVector(x.getRowDimension()));
    }

    private static RealMatrix means(RealMatrix x) {
        RealMatrix ones = MatrixUtils.createColumnRealMatrix(onesVector(x.getRowDimension()));
        return ones.multiply(MatrixUtils.createRowRealMatrix(columnSums(x))).scalarMultiply(1.0 / x.getRowDimension());
    }

    private static double[] onesVector(int size) {
        double[] ones = new double[size];
        Arrays.fill(ones, 1);
        return ones;
    }

    private static int[] range(int size) {
        return IntStream.range(0, size).toArray();
    }
}
