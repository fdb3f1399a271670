// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.diag.Log;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class OrderedBasisTest {
    private static final Damping NONE = new Damping(0, 1000, "test", Log.NONE);

    /** XᵀX of random rows of different sizes, which is well conditioned enough to be inverted. */
    private static Matrix moment(int n, long seed) {
        Random random = new Random(seed);
        double[][] rows = new double[4 * n][n];
        for (double[] row : rows) {
            double common = random.nextGaussian();
            for (int i = 0; i < n; i++) {
                row[i] = (i + 1) * random.nextGaussian() + common;
            }
        }
        try (Matrix x = Matrix.of(rows)) {
            Matrix moment = Matrix.zeros(n, n);
            Blas.multiply(1, x, true, x, false, 0, moment);
            return moment;
        }
    }

    private static double[][] values(Matrix matrix) {
        double[][] values = new double[matrix.rows()][matrix.columns()];
        for (int i = 0; i < values.length; i++) {
            matrix.getRow(i, values[i]);
        }
        return values;
    }

    private static double[][] product(double[][] a, double[][] b, boolean transposed) {
        double[][] c = new double[a.length][transposed ? b.length : b[0].length];
        for (int i = 0; i < c.length; i++) {
            for (int j = 0; j < c[0].length; j++) {
                for (int k = 0; k < a[0].length; k++) {
                    c[i][j] += a[i][k] * (transposed ? b[j][k] : b[k][j]);
                }
            }
        }
        return c;
    }

    private static double[][] transposed(double[][] a) {
        double[][] t = new double[a[0].length][a.length];
        for (int i = 0; i < a.length; i++) {
            for (int j = 0; j < t.length; j++) {
                t[j][i] = a[i][j];
            }
        }
        return t;
    }

    @ParameterizedTest
    @ValueSource(ints = {1, 2, 7, 64})
    void bothMomentsBecomeDiagonalAndFall(int n) {
        try (Matrix a = moment(n, 1);
                Matrix s = moment(n, 2);
                OrderedBasis found = OrderedBasis.of(a, s, NONE)) {
            double[][] t = values(found.basis());
            double[][] inverse = values(found.inverse());
            double[][] one = product(t, inverse, false);
            double[][] vectors = product(product(transposed(t), values(a), false), t, false);
            double[][] covectors = product(product(inverse, values(s), false), inverse, true);
            double mean = Damping.meanDiagonal(a);
            for (int i = 0; i < n; i++) {
                for (int j = 0; j < n; j++) {
                    double here = i == j ? 1 : 0;
                    assertThat(one[i][j]).isCloseTo(here, within(1e-9));
                    assertThat(vectors[i][j]).isCloseTo(here * mean, within(1e-9 * mean));
                    assertThat(covectors[i][j])
                            .isCloseTo(here * found.energies()[i] / mean, within(1e-9 * found.energies()[0] / mean));
                }
                assertThat(found.energies()[i])
                        .isLessThanOrEqualTo(i == 0 ? Double.POSITIVE_INFINITY : found.energies()[i - 1]);
            }
        }
    }

    /**
     * The error of a projection P of rank 1 is tr((I-P)ᵀ A (I-P) S) for independent vectors and covectors. No direction and no
     * pair of a direction with another dual one, on a fine grid, has less than the first unit.
     */
    @Test
    void noProjectionOfRankOneIsBetterThanTheFirstUnit() {
        try (Matrix a = moment(2, 3);
                Matrix s = moment(2, 4);
                OrderedBasis found = OrderedBasis.of(a, s, NONE)) {
            double[][] t = values(found.basis());
            double[][] inverse = values(found.inverse());
            double own = error(values(a), values(s), new double[] {t[0][0], t[1][0]}, inverse[0]);
            assertThat(own).isCloseTo(found.energies()[1], within(1e-9 * own));
            double best = Double.POSITIVE_INFINITY;
            for (double one = 0; one < Math.PI; one += 0.002) {
                for (double other = 0; other < Math.PI; other += 0.002) {
                    double[] right = {Math.cos(one), Math.sin(one)};
                    double[] left = {Math.cos(other), Math.sin(other)};
                    double along = right[0] * left[0] + right[1] * left[1];
                    if (Math.abs(along) > 1e-3) {
                        double[] dual = {left[0] / along, left[1] / along};
                        best = Math.min(best, error(values(a), values(s), right, dual));
                    }
                }
            }
            assertThat(own).isLessThanOrEqualTo(best).isGreaterThan(0.99 * best);
        }
    }

    /** With P = column · row, x becomes x·P. */
    private static double error(double[][] a, double[][] s, double[] column, double[] row) {
        double[][] rest = new double[2][2];
        for (int i = 0; i < 2; i++) {
            for (int j = 0; j < 2; j++) {
                rest[i][j] = (i == j ? 1 : 0) - column[i] * row[j];
            }
        }
        double[][] form = product(product(product(transposed(rest), a, false), rest, false), s, false);
        return form[0][0] + form[1][1];
    }

    @Test
    void aDeadUnitComesLast() {
        try (Matrix a = Matrix.of(new double[][] {{0, 0, 0}, {0, 2, 1}, {0, 1, 2}});
                Matrix s = Matrix.of(new double[][] {{0, 0, 0}, {0, 1, 0}, {0, 0, 3}});
                OrderedBasis found = OrderedBasis.of(a, s, NONE)) {
            assertThat(found.energies()[2]).isCloseTo(0, within(1e-12));
            assertThat(found.energies()[1]).isGreaterThan(0.1);
        }
    }
}
