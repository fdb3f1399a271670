// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.algebra.Place;
import io.onnxprune.algebra.SymmetricEigen;

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
                Matrix form = Blas.product(half, rootT);
                SymmetricEigen eigen = SymmetricEigen.of(form)) {
            double scale = mean > 0 ? Math.sqrt(mean) : 1;
            // With A + λI = UᵀU and eigenvectors V, T = c U⁻¹ V and T⁻¹ = Vᵀ U / c.
            try (Matrix vectorsT = eigen.vectors().transposed();
                    Matrix v = scaled(vectorsT, 1 / scale)) {
                Matrix inverse = Blas.product(v, root);
                Matrix basis = scaled(eigen.vectors(), scale);
                Blas.solveTriangle(root, false, basis);
                return new OrderedBasis(basis, inverse, eigen.values());
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

    private static Matrix scaled(Matrix matrix, double factor) {
        double[] row = new double[matrix.columns()];
        Matrix result = Matrix.zeros(matrix.rows(), matrix.columns());
        for (int i = 0; i < matrix.rows(); i++) {
            matrix.getRow(i, row);
            for (int j = 0; j < row.length; j++) {
                row[j] *= factor;
            }
            result.setRow(i, row);
        }
        return result;
    }

    @Override
    public void close() {
        basis.close();
        inverse.close();
    }
}
