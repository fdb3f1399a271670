// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.algebra;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import java.nio.FloatBuffer;
import org.bytedeco.openblas.global.openblas_nolapack;
import org.junit.jupiter.api.Test;

class BlasTest {
    @Test
    void productsOfViews() {
        try (Matrix whole = Matrix.of(new double[][] {{9, 1, 2}, {9, 3, 4}, {9, 9, 9}});
                Matrix b = Matrix.of(new double[][] {{1, 0}, {1, 1}});
                Matrix target = Matrix.zeros(3, 3)) {
            Matrix a = whole.block(0, 1, 2, 2);
            Matrix c = target.block(1, 1, 2, 2);
            Blas.multiply(2, a, false, b, false, 0, c);
            assertRows(target, new double[][] {{0, 0, 0}, {0, 6, 4}, {0, 14, 8}});
            Blas.multiply(-1, a, true, b, true, 1, c);
            assertRows(c, new double[][] {{5, 0}, {12, 2}});
        }
    }

    @Test
    void onlyTheUpperTriangleIsWritten() {
        try (Matrix a = Matrix.of(new double[][] {{1, 2}, {3, 4}});
                Matrix c = Matrix.zeros(2, 2)) {
            Blas.rankUpdate(1, a, true, 0, c);
            assertRows(c, new double[][] {{10, 14}, {0, 20}});
            Blas.rankUpdate(1, a, false, 0, c);
            assertRows(c, new double[][] {{5, 11}, {0, 25}});
            Blas.mirror(c);
            assertRows(c, new double[][] {{5, 11}, {11, 25}});
        }
    }

    @Test
    void threadsCanBeSetAtAnyTime() {
        try (Matrix a = Matrix.of(new double[][] {{2}})) {
            Blas.setThreads(1);
            assertThat(openblas_nolapack.blas_get_num_threads()).isEqualTo(1);
            Blas.setThreads(0);
            assertThat(openblas_nolapack.blas_get_num_threads())
                    .isEqualTo(Runtime.getRuntime().availableProcessors());
            assertThat(a.get(0, 0)).isEqualTo(2);
        }
    }

    @Test
    void mismatchedSizesAreRejected() {
        try (Matrix a = Matrix.zeros(2, 3)) {
            assertThatThrownBy(() -> Blas.product(a, a)).isInstanceOf(IllegalArgumentException.class);
            assertThatThrownBy(() -> a.get(0, 3)).isInstanceOf(IndexOutOfBoundsException.class);
            assertThatThrownBy(() -> a.block(1, 1, 2, 2)).isInstanceOf(IndexOutOfBoundsException.class);
        }
    }

    @Test
    void closedMatricesCannotBeUsed() {
        Matrix a = Matrix.zeros(2, 2);
        Matrix view = a.block(0, 0, 1, 1);
        view.close();
        assertThat(a.get(0, 0)).isZero();
        a.close();
        a.close();

        assertThatThrownBy(() -> view.get(0, 0)).isInstanceOf(IllegalStateException.class);
        assertThatThrownBy(() -> Blas.product(a, a)).isInstanceOf(IllegalStateException.class);
    }

    @Test
    void valuesAreReadAndWrittenAsFloat32() {
        FloatBuffer numbers =
                FloatBuffer.wrap(new float[] {7, 1, 2, 3, 4, 5, 6}).position(1);
        FloatBuffer back = FloatBuffer.allocate(6);
        try (Matrix a = Matrix.of(numbers, 2, 3);
                Matrix transposed = a.transposed();
                Matrix part = a.select(new int[] {1}, new int[] {2, 0})) {
            a.copyTo(back);
            assertThat(back.array()).containsExactly(1, 2, 3, 4, 5, 6);
            assertRows(transposed, new double[][] {{1, 4}, {2, 5}, {3, 6}});
            assertRows(part, new double[][] {{6, 4}});
            assertThat(a.isFinite()).isTrue();
            a.set(1, 2, Double.POSITIVE_INFINITY);
            assertThat(a.isFinite()).isFalse();
        }
        assertThat(numbers.position()).isEqualTo(1);
    }

    private static void assertRows(Matrix found, double[][] expected) {
        double[] row = new double[found.columns()];
        assertThat(found.rows()).isEqualTo(expected.length);
        for (int i = 0; i < expected.length; i++) {
            found.getRow(i, row);
            assertThat(row).containsExactly(expected[i], within(1e-12));
        }
    }
}
