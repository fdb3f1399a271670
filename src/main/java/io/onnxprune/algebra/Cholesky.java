// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.algebra;

import java.util.Arrays;

/**
 * Cholesky factorisation and inversion of symmetric positive definite matrices by recursive halving. Nearly all work
 * is done by large products and triangular solves of {@link Blas}; only blocks of up to 64 rows are computed here. As
 * in {@link Blas}, only the upper triangle is used. Blocks of a matrix on a GPU are copied to the host and back, each
 * at once; cuSOLVER is not needed.
 *
 * <p>OpenBLAS has {@code dpotrf} and {@code dpotri}, but JavaCPP's glue to them is 24 MB and loads OpenBLAS a second time, and where it
 * takes seconds they are hardly faster. A Zen 4 took so long for a factor and an inverse (scripts/BenchCholesky.java, minima):
 *
 * <pre>
 *           one thread           two threads
 *       n   here      LAPACK     here      LAPACK
 *     256   1.05 ms   0.94 ms    0.81 ms   0.58 ms
 *    1024   34.6 ms   30.6 ms    20.6 ms   15.9 ms
 *    4096   1.53 s    1.43 s     1.01 s    0.99 s
 *   11008   26.0 s    25.4 s     17.5 s    17.1 s
 * </pre>
 */
public final class Cholesky {
    /** Largest block that is not halved further. */
    private static final int LEAF = 64;

    private Cholesky() {}

    /**
     * Replaces the upper triangle of {@code a} by its Cholesky factor {@code u}, with {@code a = uᵀu}.
     *
     * @return whether {@code a} was positive definite; if not, its upper triangle is undefined
     * @throws IllegalArgumentException when {@code a} is not square
     */
    public static boolean factor(Matrix a) {
        int n = size(a);
        if (n <= LEAF) {
            return leaf(a, Cholesky::factor);
        }
        int half = half(n);
        Matrix first = a.block(0, 0, half, half);
        Matrix across = a.block(0, half, half, n - half);
        Matrix second = a.block(half, half, n - half, n - half);
        if (!factor(first)) {
            return false;
        }
        Blas.solveTriangle(first, true, across);
        Blas.rankUpdate(-1, across, true, 1, second);
        return factor(second);
    }

    /**
     * Solves {@code b = a⁻¹b}, where {@code u} is the Cholesky factor of {@code a}. If the two live in different places,
     * {@code b} is copied to the place of {@code u} and back.
     */
    public static void solve(Matrix u, Matrix b) {
        if (b.place() != u.place()) {
            try (Matrix there = u.place().borrow(b)) {
                solve(u, there);
                b.assign(there);
            }
            return;
        }
        Blas.solveTriangle(u, true, b);
        Blas.solveTriangle(u, false, b);
    }

    /** Replaces the Cholesky factor {@code u} of {@code a} by the upper triangle of {@code a⁻¹ = u⁻¹u⁻ᵀ}. */
    public static void invert(Matrix u) {
        invertTriangle(u);
        timesTranspose(u);
    }

    /** {@code u = u⁻¹}. */
    private static void invertTriangle(Matrix u) {
        int n = size(u);
        if (n <= LEAF) {
            leaf(u, Cholesky::invertTriangle);
            return;
        }
        int half = half(n);
        Matrix first = u.block(0, 0, half, half);
        Matrix across = u.block(0, half, half, n - half);
        Matrix second = u.block(half, half, n - half, n - half);
        Blas.solveTriangle(first, false, across);
        Blas.solveTriangleFromRight(-1, second, across);
        invertTriangle(first);
        invertTriangle(second);
    }

    /** {@code u = u uᵀ}. */
    private static void timesTranspose(Matrix u) {
        int n = size(u);
        if (n <= LEAF) {
            leaf(u, Cholesky::timesTranspose);
            return;
        }
        int half = half(n);
        Matrix first = u.block(0, 0, half, half);
        Matrix across = u.block(0, half, half, n - half);
        Matrix second = u.block(half, half, n - half, n - half);
        timesTranspose(first);
        Blas.rankUpdate(1, across, false, 1, first);
        Blas.multiplyTriangleFromRight(second, across);
        timesTranspose(second);
    }

    /** About half of n, rounded up to a multiple of the leaf size. */
    private static int half(int n) {
        return (n / 2 + LEAF - 1) / LEAF * LEAF;
    }

    private static int size(Matrix a) {
        if (a.rows() != a.columns()) {
            throw new IllegalArgumentException("a matrix of " + a + " is not square");
        }
        return a.rows();
    }

    /** An operation on the upper triangle of a small matrix, in place; returns whether it succeeded. */
    private interface LeafOperation {
        boolean apply(double[][] a);
    }

    private static boolean leaf(Matrix a, LeafOperation operation) {
        if (!a.place().isHost()) {
            try (Matrix host = Place.HOST.borrow(a)) {
                boolean done = leaf(host, operation);
                a.assign(host);
                return done;
            }
        }
        double[][] values = new double[a.rows()][a.columns()];
        for (int i = 0; i < values.length; i++) {
            a.getRow(i, values[i]);
        }
        boolean done = operation.apply(values);
        for (int i = 0; i < values.length; i++) {
            // Only the upper triangle is written back.
            a.block(i, i, 1, values.length - i).setRow(0, Arrays.copyOfRange(values[i], i, values.length));
        }
        return done;
    }

    private static boolean factor(double[][] a) {
        int n = a.length;
        for (int k = 0; k < n; k++) {
            // NaN must fail too.
            if (!(a[k][k] > 0) || Double.isInfinite(a[k][k])) {
                return false;
            }
            double pivot = Math.sqrt(a[k][k]);
            for (int j = k; j < n; j++) {
                a[k][j] /= pivot;
            }
            a[k][k] = pivot;
            for (int i = k + 1; i < n; i++) {
                for (int j = i; j < n; j++) {
                    a[i][j] -= a[k][i] * a[k][j];
                }
            }
        }
        return true;
    }

    private static boolean invertTriangle(double[][] u) {
        int n = u.length;
        for (int i = n - 1; i >= 0; i--) {
            double pivot = 1 / u[i][i];
            // Row i of the inverse is -pivot u_i,> times the rows below, which are already inverted.
            double[] row = new double[n];
            for (int k = i + 1; k < n; k++) {
                for (int j = k; j < n; j++) {
                    row[j] -= u[i][k] * u[k][j];
                }
            }
            for (int j = i + 1; j < n; j++) {
                u[i][j] = pivot * row[j];
            }
            u[i][i] = pivot;
        }
        return true;
    }

    private static boolean timesTranspose(double[][] u) {
        int n = u.length;
        for (int i = 0; i < n; i++) {
            for (int j = i; j < n; j++) {
                double sum = 0;
                for (int k = j; k < n; k++) {
                    sum += u[i][k] * u[j][k];
                }
                u[i][j] = sum;
            }
        }
        return true;
    }
}
