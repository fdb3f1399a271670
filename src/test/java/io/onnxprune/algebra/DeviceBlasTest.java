// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.algebra;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.device.HostDevice;
import io.onnxprune.device.StandInCuda;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.function.Consumer;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Every operation on a GPU, whose libraries are stand-ins, gives what it gives on the host. */
class DeviceBlasTest {
    private static final double TOLERANCE = 1e-10;
    private static final int[] SQUARE = {7, 7};

    private Place device;

    @BeforeEach
    void select() {
        Blas.useDevice(StandInCuda.open(), 1);
        device = Place.forWork(1, 0);
        assertThat(device.isHost()).isFalse();
    }

    @AfterEach
    void deselect() {
        Blas.useHost();
    }

    /** An operation on matrices of given sizes. */
    @SuppressWarnings("ArrayRecordComponent") // a holder, never compared
    record Case(String name, Consumer<Matrix[]> operation, int[]... sizes) {
        @Override
        public String toString() {
            return name;
        }
    }

    static Stream<Case> products() {
        List<Case> cases = new ArrayList<>();
        for (int[] size : new int[][] {{3, 4, 5}, {1, 4, 5}, {3, 4, 1}, {1, 4, 1}, {3, 1, 5}, {3, 0, 5}, {0, 2, 3}}) {
            for (boolean a : new boolean[] {false, true}) {
                for (boolean b : new boolean[] {false, true}) {
                    for (double beta : new double[] {0, 1, 0.5}) {
                        cases.add(new Case(
                                "%s %s %s beta %s".formatted(Arrays.toString(size), a, b, beta),
                                m -> Blas.multiply(-2, m[0], a, m[1], b, beta, m[2]),
                                size(a, size[0], size[1]),
                                size(b, size[1], size[2]),
                                new int[] {size[0], size[2]}));
                    }
                }
            }
        }
        cases.add(new Case(
                "new matrix", m -> assign(Blas.product(m[0], m[1]), m[2]), pair(3, 4), pair(4, 2), pair(3, 2)));
        return cases.stream();
    }

    static Stream<Case> operations() {
        return Stream.of(
                new Case("vector", m -> Blas.multiplySymmetric(m[0], m[1], m[2]), SQUARE, pair(7, 1), pair(7, 1)),
                new Case("update, transposed", m -> Blas.rankUpdate(-1, m[0], true, 0.5, m[1]), pair(3, 7), SQUARE),
                new Case("update", m -> Blas.rankUpdate(2, m[0], false, 0, m[1]), pair(7, 3), SQUARE),
                new Case("update twice", m -> Blas.subtractTwice(m[0], m[1], m[2]), pair(3, 7), pair(3, 7), SQUARE),
                new Case("symmetric", m -> Blas.symmetricProduct(m[0], m[1], m[2]), pair(7, 3), pair(7, 3), SQUARE),
                new Case("exchange", m -> Blas.exchange(m[0], 1, 4), SQUARE),
                new Case("exchange the ends", m -> Blas.exchange(m[0], 0, 6), SQUARE),
                new Case("exchange neighbours", m -> Blas.exchange(m[0], 5, 6), SQUARE),
                new Case("exchange columns", m -> Blas.exchangeColumns(m[0], 1, 4), pair(3, 5)),
                new Case("solve", m -> Blas.solveTriangle(triangle(m[0]), false, m[1]), SQUARE, pair(7, 3)),
                new Case("solve, transposed", m -> Blas.solveTriangle(triangle(m[0]), true, m[1]), SQUARE, pair(7, 3)),
                new Case("solve a vector", m -> Blas.solveTriangle(triangle(m[0]), true, m[1]), SQUARE, pair(7, 1)),
                new Case("right", m -> Blas.solveTriangleFromRight(-3, triangle(m[0]), m[1]), SQUARE, pair(3, 7)),
                new Case("triangle times", m -> Blas.multiplyTriangleFromRight(m[0], m[1]), SQUARE, pair(3, 7)),
                new Case("mirror", m -> Blas.mirror(m[0]), SQUARE),
                new Case("mirror many", m -> Blas.mirror(m[0]), pair(150, 150)),
                new Case("combine", m -> Pointwise.combine(2, m[0], -0.5, m[1]), pair(3, 5), pair(3, 5)),
                new Case("scale", m -> Pointwise.scale(m[0], m[1]), pair(3, 5), pair(3, 5)),
                new Case("scale many", m -> Pointwise.scale(m[0], m[1]), pair(300, 4000), pair(300, 4000)),
                new Case("dot", m -> m[2].set(0, 0, Pointwise.dot(m[0], m[1])), pair(3, 5), pair(3, 5), pair(1, 1)),
                new Case("assign", m -> m[0].assign(m[1]), pair(3, 5), pair(3, 5)),
                new Case("elements", m -> m[0].add(1, 2, m[0].get(2, 1)), SQUARE),
                new Case("diagonal", m -> m[1].setRow(0, m[0].diagonal()), SQUARE, pair(1, 7)),
                new Case(
                        "select",
                        m -> assign(m[0].select(new int[] {2, 3, 4, 1}, new int[] {5, 2, 3}), m[1]),
                        SQUARE,
                        pair(4, 3)),
                new Case("none", m -> assign(m[0].select(new int[] {2}, new int[0]), m[1]), SQUARE, pair(1, 0)),
                new Case("transpose", m -> assign(m[0].transposed(), m[1]), pair(3, 5), pair(5, 3)),
                new Case("rows", m -> assign(m[0].selectRows(new int[] {2, 0}), m[1]), pair(3, 5), pair(2, 5)),
                new Case("copy", m -> assign(m[0].copy(), m[1]), pair(3, 5), pair(3, 5)));
    }

    @ParameterizedTest
    @MethodSource({"products", "operations"})
    void matricesWithoutGaps(Case operation) {
        compare(operation, 0);
    }

    @ParameterizedTest
    @MethodSource({"products", "operations"})
    void views(Case operation) {
        compare(operation, 3);
    }

    /** Compares whole operands, also the elements that must not change: {@code margin} rows and columns around views. */
    private void compare(Case operation, int margin) {
        Random random = new Random(operation.name.length());
        int count = operation.sizes.length;
        Matrix[] host = new Matrix[count];
        Matrix[] there = new Matrix[count];
        for (int i = 0; i < count; i++) {
            host[i] = random(random, operation.sizes[i][0] + 2 * margin, operation.sizes[i][1] + 2 * margin);
            there[i] = device.borrow(host[i]);
        }

        operation.operation.accept(views(host, margin));
        operation.operation.accept(views(there, margin));

        for (int i = 0; i < count; i++) {
            try (Matrix expected = host[i];
                    Matrix found = Place.HOST.move(there[i])) {
                assertClose(found, expected, false);
            }
        }
    }

    /** The stand-in fills new memory with NaN, which a factor of zero must not keep. */
    @Test
    void resultsMayBeUndefinedBefore() {
        StandInCuda.assumeStandIn();
        try (Matrix a = device.borrow(Matrix.of(new double[][] {{1, 2}, {3, 4}}));
                Matrix result = Matrix.uninitialized(device, 2, 2)) {
            assertThat(result.get(1, 1)).isNaN();
            Blas.multiply(1, a, false, a, false, 0, result);
            assertThat(result.get(1, 1)).isEqualTo(22);
        }
    }

    @Test
    void factorInverseAndSolution() {
        for (int n : new int[] {1, 2, 64, 65, 200}) {
            Random random = new Random(n);
            try (Matrix x = random(random, n + 10, n);
                    Matrix a = Matrix.zeros(n, n);
                    Matrix b = random(random, n, 3)) {
                Blas.rankUpdate(1, x, true, 0, a);
                Blas.rankUpdate(1, b, false, 1, a);
                try (Matrix expected = a.copy();
                        Matrix found = device.borrow(a);
                        Matrix solution = b.copy()) {
                    assertThat(Cholesky.factor(expected)).isTrue();
                    assertThat(Cholesky.factor(found)).isTrue();
                    assertClose(found, expected, true);
                    Cholesky.solve(expected, b);
                    Cholesky.solve(found, solution);
                    assertClose(solution, b, false);
                    Cholesky.invert(expected);
                    Cholesky.invert(found);
                    assertClose(found, expected, true);
                }
            }
        }
    }

    @Test
    void matricesThatAreNotPositiveDefiniteHaveNoFactor() {
        for (double value : new double[] {-1, 0, Double.NaN, Double.POSITIVE_INFINITY}) {
            for (int n : new int[] {3, 130}) {
                try (Matrix a = device.zeros(n, n)) {
                    for (int i = 0; i < n; i++) {
                        a.set(i, i, i == n - 2 ? value : 1);
                    }
                    assertThat(Cholesky.factor(a)).as("%s in %d", value, n).isFalse();
                }
            }
        }
    }

    @Test
    void operandsMustLiveTogether() {
        try (Matrix a = Matrix.zeros(2, 2);
                Matrix there = device.zeros(2, 2)) {
            assertThatThrownBy(() -> Blas.product(a, there)).isInstanceOf(IllegalArgumentException.class);
            assertThatThrownBy(() -> Pointwise.dot(a, there)).isInstanceOf(IllegalArgumentException.class);
            assertThatThrownBy(() -> a.assign(there.block(0, 0, 1, 2))).isInstanceOf(IllegalArgumentException.class);
            assertThat(there.isFinite()).isTrue();
            there.set(1, 1, Double.NaN);
            assertThat(there.isFinite()).isFalse();
        }
    }

    @Test
    void closedMatricesCannotBeUsed() {
        Matrix there = device.zeros(2, 2);
        there.block(0, 0, 1, 1).close();
        assertThat(there.get(0, 0)).isZero();
        there.close();
        there.close();

        assertThatThrownBy(() -> there.get(0, 0)).isInstanceOf(IllegalStateException.class);
        assertThatThrownBy(() -> Blas.mirror(there)).isInstanceOf(IllegalStateException.class);
    }

    @Test
    void onlyLargeWorkThatFitsIsDoneThere() {
        assertThat(Place.forWork(0, 0).isHost()).isTrue();
        assertThat(Place.forWork(1, 1L << 40).isHost()).isTrue();
        Blas.useDevice(StandInCuda.open());
        assertThat(Place.forWork(511, 0).isHost()).isTrue();
        assertThat(Place.forWork(512, 0).isHost()).isFalse();
        Blas.useDevice(new HostDevice());
        assertThat(Place.forWork(512, 0).isHost()).isTrue();
    }

    private static Matrix random(Random random, int rows, int columns) {
        Matrix result = Matrix.zeros(rows, columns);
        double[] row = new double[columns];
        for (int i = 0; i < rows; i++) {
            Arrays.setAll(row, j -> random.nextGaussian());
            result.setRow(i, row);
        }
        return result;
    }

    /** Makes the diagonal large, so that solutions do not lose digits. */
    private static Matrix triangle(Matrix a) {
        for (int i = 0; i < a.rows(); i++) {
            a.set(i, i, 4 + i);
        }
        return a;
    }

    private static int[] pair(int rows, int columns) {
        return new int[] {rows, columns};
    }

    private static int[] size(boolean transposed, int rows, int columns) {
        return transposed ? pair(columns, rows) : pair(rows, columns);
    }

    private static void assign(Matrix from, Matrix to) {
        try (from) {
            to.assign(from);
        }
    }

    private static Matrix[] views(Matrix[] matrices, int margin) {
        return Stream.of(matrices)
                .map(m -> m.block(margin, margin, m.rows() - 2 * margin, m.columns() - 2 * margin))
                .toArray(Matrix[]::new);
    }

    private static void assertClose(Matrix found, Matrix expected, boolean triangle) {
        try (Matrix host = Place.HOST.borrow(found)) {
            for (int i = 0; i < expected.rows(); i++) {
                for (int j = triangle ? i : 0; j < expected.columns(); j++) {
                    double value = expected.get(i, j);
                    if (!(Math.abs(host.get(i, j) - value) <= TOLERANCE * Math.max(1, Math.abs(value)))) {
                        assertThat(host.get(i, j)).as("element %d, %d", i, j).isCloseTo(value, within(TOLERANCE));
                    }
                }
            }
        }
    }
}
