// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.algebra;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class CholeskyTest {
    /** Sizes below, at and above those where matrices are halved. */
    @ParameterizedTest
    @ValueSource(ints = {0, 1, 2, 63, 64, 65, 128, 129, 200})
    void factorSolvesAndInverts(int n) {
        double[][] values = positiveDefinite(n);
        try (Matrix whole = Matrix.zeros(n + 3, n + 5);
                Matrix a = Matrix.of(values);
                Matrix solution = Matrix.of(values)) {
            Matrix inverse = whole.block(2, 1, n, n);
            for (int i = 0; i < n; i++) {
                for (int j = i; j < n; j++) {
                    inverse.set(i, j, values[i][j]);
                }
            }
            assertThat(Cholesky.factor(inverse)).isTrue();
            Cholesky.solve(inverse, solution);
            assertIdentity(solution);
            Cholesky.invert(inverse);
            for (int i = 0; i < n; i++) {
                for (int j = 0; j < i; j++) {
                    assertThat(inverse.get(i, j)).as("below the diagonal").isZero();
                }
            }
            Blas.mirror(inverse);
            try (Matrix product = Blas.product(a, inverse)) {
                assertIdentity(product);
            }
        }
    }

    /** A constant input that is solved for leaves the moment of the others about their mean. */
    @Test
    void theInverseOfACentredMomentIsABlockOfTheBorderedOne() {
        Random random = new Random(3);
        int n = 7;
        int count = 40;
        double[] total = new double[n];
        double[][] moment = new double[n][n];
        for (int position = 0; position < count; position++) {
            double[] x = random.doubles(n, 1, 3).toArray();
            for (int i = 0; i < n; i++) {
                total[i] += x[i];
                for (int j = 0; j < n; j++) {
                    moment[i][j] += x[i] * x[j];
                }
            }
        }
        try (Matrix a = Matrix.of(moment);
                Matrix centred = a.centred(total, count);
                Matrix bordered = a.bordered(total, count)) {
            for (Matrix each : new Matrix[] {centred, bordered}) {
                assertThat(Cholesky.factor(each)).isTrue();
                Cholesky.invert(each);
            }
            for (int i = 0; i < n; i++) {
                for (int j = i; j < n; j++) {
                    assertThat(centred.get(i, j)).isCloseTo(bordered.get(i, j), within(1e-9));
                }
            }
        }
    }

    @ParameterizedTest
    @ValueSource(ints = {2, 100, 190})
    void matricesThatAreNotPositiveDefiniteHaveNoFactor(int n) {
        double[][] values = positiveDefinite(n);
        for (double bad : new double[] {-1, 0, Double.NaN, Double.POSITIVE_INFINITY}) {
            values[n - 1][n - 1] = bad;
            try (Matrix a = Matrix.of(values)) {
                assertThat(Cholesky.factor(a)).isFalse();
            }
        }
    }

    @Test
    void aFactorIsTriangularWithPositiveDiagonal() {
        try (Matrix a = Matrix.of(new double[][] {{4, 2}, {7, 10}})) {
            assertThat(Cholesky.factor(a)).isTrue();
            assertThat(a.get(0, 0)).isEqualTo(2);
            assertThat(a.get(0, 1)).isEqualTo(1);
            assertThat(a.get(1, 1)).isEqualTo(3);
            assertThat(a.get(1, 0)).as("untouched").isEqualTo(7);
        }
    }

    private static double[][] positiveDefinite(int n) {
        Random random = new Random(n);
        double[][] result = new double[n][n];
        for (int i = 0; i < n; i++) {
            for (int j = 0; j < i; j++) {
                result[i][j] = random.nextDouble() - 0.5;
                result[j][i] = result[i][j];
            }
            result[i][i] = n;
        }
        return result;
    }

    private static void assertIdentity(Matrix found) {
        for (int i = 0; i < found.rows(); i++) {
            for (int j = 0; j < found.columns(); j++) {
                assertThat(found.get(i, j)).isCloseTo(i == j ? 1 : 0, within(1e-12));
            }
        }
    }
}
