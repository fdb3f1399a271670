// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.algebra;

import java.util.Arrays;
import java.util.Comparator;
import java.util.stream.IntStream;

/**
 * Eigenvalues and orthonormal eigenvectors of a symmetric matrix: reduction to tridiagonal form by Householder reflections,
 * then implicit QL steps (Golub and Van Loan, Matrix Computations, sections 8.3.1 and 8.3.3). About 6 n³ multiplications.
 *
 * @param values {@code [n]}, falling
 * @param vectors orthogonal, {@code [n, n]}, with the eigenvectors as columns
 */
@SuppressWarnings("ArrayRecordComponent") // a result, never compared
public record SymmetricEigen(double[] values, Matrix vectors) implements AutoCloseable {
    private static final int MAX_STEPS = 60;

    /**
     * The eigenvalues and eigenvectors of {@code a}.
     *
     * @param a symmetric, {@code [n, n]}; it is not changed
     * @return the caller closes it
     * @throws IllegalArgumentException if a number is not finite
     */
    public static SymmetricEigen of(Matrix a) {
        if (!a.isFinite()) {
            throw new IllegalArgumentException("a matrix with numbers that are not finite has no eigenvectors");
        }
        int n = a.rows();
        double[][] rows = new double[n][n];
        for (int i = 0; i < n; i++) {
            a.getRow(i, rows[i]);
        }
        double[][] vectors = new double[n][n];
        for (int i = 0; i < n; i++) {
            vectors[i][i] = 1;
        }
        double[] off = new double[n];
        double[] values = tridiagonal(rows, vectors, off);
        diagonal(values, off, vectors);
        int[] order = IntStream.range(0, n)
                .boxed()
                .sorted(Comparator.comparingDouble((Integer i) -> -values[i]))
                .mapToInt(Integer::intValue)
                .toArray();
        Matrix result = Matrix.zeros(n, n);
        for (int column = 0; column < n; column++) {
            for (int row = 0; row < n; row++) {
                result.set(row, column, vectors[order[column]][row]);
            }
        }
        return new SymmetricEigen(
                IntStream.of(order).mapToDouble(i -> values[i]).toArray(), result);
    }

    @Override
    public void close() {
        vectors.close();
    }

    /** Makes {@code a} tridiagonal. Row i of {@code q} becomes the i-th vector of the basis in which it is. */
    private static double[] tridiagonal(double[][] a, double[][] q, double[] off) {
        int n = a.length;
        for (int k = 0; k < n - 2; k++) {
            double[] v = new double[n];
            double norm = 0;
            for (int i = k + 1; i < n; i++) {
                v[i] = a[i][k];
                norm = Math.hypot(norm, v[i]);
            }
            if (norm == 0) {
                continue;
            }
            v[k + 1] += v[k + 1] >= 0 ? norm : -norm;
            double square = Arrays.stream(v).map(x -> x * x).sum();
            reflectBothSides(a, v, 2 / square, k + 1);
            reflectRows(q, v, 2 / square, k + 1);
        }
        double[] values = new double[n];
        for (int i = 0; i < n; i++) {
            values[i] = a[i][i];
            off[i] = i + 1 < n ? a[i + 1][i] : 0;
        }
        return values;
    }

    /** a becomes H a H with H = I - β v vᵀ, where v is zero before {@code first}. */
    private static void reflectBothSides(double[][] a, double[] v, double beta, int first) {
        int n = a.length;
        double[] p = new double[n];
        double dot = 0;
        for (int i = first - 1; i < n; i++) {
            double sum = 0;
            for (int j = first; j < n; j++) {
                sum += a[i][j] * v[j];
            }
            p[i] = beta * sum;
            dot += p[i] * v[i];
        }
        for (int i = first - 1; i < n; i++) {
            p[i] -= beta / 2 * dot * v[i];
        }
        for (int i = first - 1; i < n; i++) {
            for (int j = first - 1; j < n; j++) {
                a[i][j] -= v[i] * p[j] + p[i] * v[j];
            }
        }
    }

    private static void reflectRows(double[][] q, double[] v, double beta, int first) {
        int n = q.length;
        double[] sums = new double[n];
        for (int i = first; i < n; i++) {
            for (int j = 0; j < n; j++) {
                sums[j] += v[i] * q[i][j];
            }
        }
        for (int i = first; i < n; i++) {
            double factor = beta * v[i];
            for (int j = 0; j < n; j++) {
                q[i][j] -= factor * sums[j];
            }
        }
    }

    /** Implicit QL with Wilkinson's shift; rows of {@code q} become eigenvectors. */
    private static void diagonal(double[] d, double[] e, double[][] q) {
        int n = d.length;
        for (int first = 0; first < n; first++) {
            for (int step = 0; ; step++) {
                int last = first;
                while (last < n - 1 && Math.abs(e[last]) > Math.ulp(Math.abs(d[last]) + Math.abs(d[last + 1]))) {
                    last++;
                }
                if (last == first) {
                    break;
                }
                if (step == MAX_STEPS) {
                    throw new IllegalStateException("eigenvalues did not converge");
                }
                sweep(d, e, q, first, last);
            }
        }
    }

    private static void sweep(double[] d, double[] e, double[][] q, int first, int last) {
        double g = (d[first + 1] - d[first]) / (2 * e[first]);
        double r = Math.hypot(g, 1);
        g = d[last] - d[first] + e[first] / (g + Math.copySign(r, g));
        double s = 1;
        double c = 1;
        double p = 0;
        for (int i = last - 1; i >= first; i--) {
            double f = s * e[i];
            double b = c * e[i];
            r = Math.hypot(f, g);
            e[i + 1] = r;
            if (r == 0) {
                d[i + 1] -= p;
                e[last] = 0;
                return;
            }
            s = f / r;
            c = g / r;
            g = d[i + 1] - p;
            r = (d[i] - g) * s + 2 * c * b;
            p = s * r;
            d[i + 1] = g + p;
            g = c * r - b;
            rotate(q[i], q[i + 1], s, c);
        }
        d[first] -= p;
        e[first] = g;
        e[last] = 0;
    }

    private static void rotate(double[] one, double[] other, double s, double c) {
        for (int k = 0; k < one.length; k++) {
            double f = other[k];
            other[k] = s * one[k] + c * f;
            one[k] = c * one[k] - s * f;
        }
    }
}
