// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.algebra.Place;
import java.util.Comparator;
import java.util.stream.IntStream;

/**
 * The basis in which the units of a space are independent and ordered. Of vectors x with the second moment A and covectors y
 * with the second moment S, the products x·yᵀ stay the same when x becomes x·T and y becomes y·T⁻ᵀ. In the basis found here,
 * the moments of both are diagonal: of the vectors a multiple of the identity, of the covectors the eigenvalues σ² of
 * A^½ S A^½, which fall. So the first r units have the least error E‖xyᵀ‖² that rank r allows, for x and y that are independent.
 *
 * <p>For values and their output projection this is the truncated singular value decomposition of A^½ W_v W_o
 * (MoDeGPT, arXiv 2408.09632, section 3.3), with A taken where the projection reads.
 *
 * @param basis T, {@code [n, n]}
 * @param inverse T⁻¹, {@code [n, n]}
 * @param energies σ², {@code [n]}, falling
 */
@SuppressWarnings("ArrayRecordComponent") // a result, never compared
public record OrderedBasis(Matrix basis, Matrix inverse, double[] energies) implements AutoCloseable {
    private static final int MAX_SWEEPS = 60;
    private static final double CONVERGED = 1e-26;

    /**
     * The ordered basis.
     *
     * @param vectors A, {@code [n, n]}, symmetric
     * @param covectors S, {@code [n, n]}, symmetric
     * @param damping λ as a share of the mean diagonal of A
     * @throws io.onnxprune.diag.UserException when a number is not finite or A cannot be inverted
     */
    public static OrderedBasis of(Matrix vectors, Matrix covectors, Damping damping) {
        damping.checkFinite(vectors, "second moment of the vectors");
        damping.checkFinite(covectors, "second moment of the covectors");
        int n = vectors.rows();
        double mean = Damping.meanDiagonal(vectors);
        try (Matrix root = damping.raise(n, share -> upper(vectors, share * mean));
                Matrix half = Blas.product(root, covectors);
                Matrix rootT = root.transposed();
                Matrix form = Blas.product(half, rootT)) {
            double[][] eigenvectors = new double[n][n];
            double[] values = diagonalise(form, eigenvectors);
            int[] order = IntStream.range(0, n)
                    .boxed()
                    .sorted(Comparator.comparingDouble((Integer i) -> -values[i]))
                    .mapToInt(Integer::intValue)
                    .toArray();
            double scale = mean > 0 ? Math.sqrt(mean) : 1;
            // Vᵀ in the rows of eigenvectors: T = c U⁻¹ V and T⁻¹ = Vᵀ U / c, with A + λI = UᵀU.
            try (Matrix v = Matrix.of(select(eigenvectors, order, 1 / scale))) {
                Matrix inverse = Blas.product(v, root);
                Matrix basis = Matrix.of(columns(eigenvectors, order, scale));
                Blas.solveTriangle(root, false, basis);
                return new OrderedBasis(
                        basis,
                        inverse,
                        IntStream.of(order).mapToDouble(i -> values[i]).toArray());
            }
        }
    }

    /** The upper triangular root U of A + λI, with zeros below the diagonal. */
    private static Matrix upper(Matrix a, double lambda) {
        Matrix factor = Place.HOST.move(Damping.factored(a.copy(), lambda));
        for (int i = 0; i < factor.rows(); i++) {
            for (int j = 0; j < i; j++) {
                factor.set(i, j, 0);
            }
        }
        return factor;
    }

    private static double[][] select(double[][] rows, int[] order, double scale) {
        return IntStream.of(order)
                .mapToObj(i -> IntStream.range(0, rows.length)
                        .mapToDouble(j -> scale * rows[i][j])
                        .toArray())
                .toArray(double[][]::new);
    }

    private static double[][] columns(double[][] rows, int[] order, double scale) {
        return IntStream.range(0, rows.length)
                .mapToObj(j ->
                        IntStream.of(order).mapToDouble(i -> scale * rows[i][j]).toArray())
                .toArray(double[][]::new);
    }

    /**
     * The eigenvalues of a symmetric matrix by cyclic Jacobi rotations (Golub and Van Loan, Matrix Computations, section 8.5).
     * Meant for sizes of heads: each sweep takes about 6 n³ operations.
     *
     * @param vectors gets the eigenvectors as rows
     */
    private static double[] diagonalise(Matrix form, double[][] vectors) {
        int n = form.rows();
        double[][] a = new double[n][n];
        double total = 0;
        for (int i = 0; i < n; i++) {
            form.getRow(i, a[i]);
            vectors[i][i] = 1;
            for (double value : a[i]) {
                total += value * value;
            }
        }
        double off = Double.POSITIVE_INFINITY;
        for (int sweep = 0; sweep < MAX_SWEEPS && off > CONVERGED * total; sweep++) {
            off = 0;
            for (int p = 0; p < n; p++) {
                for (int q = p + 1; q < n; q++) {
                    off += a[p][q] * a[p][q];
                    rotate(a, vectors, p, q);
                }
            }
        }
        return IntStream.range(0, n).mapToDouble(i -> a[i][i]).toArray();
    }

    /** Makes a[p][q] zero. */
    private static void rotate(double[][] a, double[][] vectors, int p, int q) {
        if (a[p][q] == 0) {
            return;
        }
        double theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
        double tangent = Math.copySign(1, theta) / (Math.abs(theta) + Math.hypot(theta, 1));
        double cosine = 1 / Math.hypot(tangent, 1);
        double sine = tangent * cosine;
        for (int i = 0; i < a.length; i++) {
            double left = a[i][p];
            a[i][p] = cosine * left - sine * a[i][q];
            a[i][q] = sine * left + cosine * a[i][q];
        }
        turn(a[p], a[q], cosine, sine);
        turn(vectors[p], vectors[q], cosine, sine);
    }

    private static void turn(double[] first, double[] second, double cosine, double sine) {
        for (int i = 0; i < first.length; i++) {
            double left = first[i];
            first[i] = cosine * left - sine * second[i];
            second[i] = sine * left + cosine * second[i];
        }
    }

    @Override
    public void close() {
        basis.close();
        inverse.close();
    }
}
