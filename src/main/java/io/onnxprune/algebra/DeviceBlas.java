// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.algebra;

import static io.onnxprune.device.Cublas.LEFT;
import static io.onnxprune.device.Cublas.LOWER;
import static io.onnxprune.device.Cublas.NON_UNIT;
import static io.onnxprune.device.Cublas.OP_N;
import static io.onnxprune.device.Cublas.OP_T;
import static io.onnxprune.device.Cublas.RIGHT;

import io.onnxprune.device.CudaBlas;

/**
 * The operations of {@link Blas} on a GPU, each one call of cuBLAS or a few. Its matrices are column-major, so it takes
 * a row-major matrix for its transpose, and an upper triangle for a lower one:
 *
 * <pre>
 *   c = op(a) op(b)       cᵀ = op(b)ᵀ op(a)ᵀ    operands exchanged, rows and columns exchanged
 *   c = aᵀa, c = a aᵀ     with ã = aᵀ: ã ãᵀ, ãᵀã    the transposition is inverted
 *   b = op(u)⁻¹ b         bᵀ = bᵀ op(uᵀ)⁻¹    from the other side, with the same transposition
 * </pre>
 */
final class DeviceBlas {
    private final CudaBlas blas;

    DeviceBlas(CudaBlas blas) {
        this.blas = blas;
    }

    /** {@code c = alpha op(a) op(b) + beta c}. */
    void multiply(double alpha, Matrix a, boolean transposeA, Matrix b, boolean transposeB, double beta, Matrix c) {
        int inner = transposeA ? a.rows() : a.columns();
        if (inner == 0 && beta == 1) {
            return;
        }
        blas.call(
                "cublasDgemm",
                (cublas, handle) -> cublas.cublasDgemm_v2(
                        handle,
                        operation(transposeB),
                        operation(transposeA),
                        c.columns(),
                        c.rows(),
                        inner,
                        number(alpha),
                        b.address(),
                        b.stride(),
                        a.address(),
                        a.stride(),
                        number(beta),
                        c.address(),
                        c.stride()));
    }

    /** {@code y = alpha op(a) x + beta y}, with the distances of the elements of x and of y in memory. */
    void vector(double alpha, Matrix a, boolean transposed, Matrix x, int stepX, double beta, Matrix y, int stepY) {
        blas.call(
                "cublasDgemv",
                (cublas, handle) -> cublas.cublasDgemv_v2(
                        handle,
                        operation(!transposed),
                        a.columns(),
                        a.rows(),
                        number(alpha),
                        a.address(),
                        a.stride(),
                        x.address(),
                        stepX,
                        number(beta),
                        y.address(),
                        stepY));
    }

    /** {@code y = a x} for a symmetric {@code a}. */
    void multiplySymmetric(Matrix a, Matrix x, Matrix y) {
        blas.call(
                "cublasDsymv",
                (cublas, handle) -> cublas.cublasDsymv_v2(
                        handle,
                        LOWER,
                        a.rows(),
                        number(1),
                        a.address(),
                        a.stride(),
                        x.address(),
                        x.stride(),
                        number(0),
                        y.address(),
                        y.stride()));
    }

    /** {@code c = alpha aᵀ a + beta c} when transposed, else {@code c = alpha a aᵀ + beta c}. */
    void rankUpdate(double alpha, Matrix a, boolean transposed, double beta, Matrix c) {
        blas.call(
                "cublasDsyrk",
                (cublas, handle) -> cublas.cublasDsyrk_v2(
                        handle,
                        LOWER,
                        operation(!transposed),
                        c.rows(),
                        transposed ? a.rows() : a.columns(),
                        number(alpha),
                        a.address(),
                        a.stride(),
                        number(beta),
                        c.address(),
                        c.stride()));
    }

    /** {@code c = c - aᵀb - bᵀa}. */
    void subtractTwice(Matrix a, Matrix b, Matrix c) {
        blas.call(
                "cublasDsyr2k",
                (cublas, handle) -> cublas.cublasDsyr2k_v2(
                        handle,
                        LOWER,
                        OP_N,
                        c.rows(),
                        a.rows(),
                        number(-1),
                        a.address(),
                        a.stride(),
                        b.address(),
                        b.stride(),
                        number(1),
                        c.address(),
                        c.stride()));
    }

    /** Exchanges the elements of two vectors, with their distances in memory. */
    void exchange(Matrix x, int stepX, Matrix y, int stepY, int count) {
        blas.call(
                "cublasDswap",
                (cublas, handle) -> cublas.cublasDswap_v2(handle, count, x.address(), stepX, y.address(), stepY));
    }

    /** {@code b = alpha op(u)⁻¹ b}, or {@code b = alpha b op(u)⁻¹} from the right, for an upper triangular u. */
    void solveTriangle(boolean fromRight, boolean transposed, double alpha, Matrix u, Matrix b) {
        blas.call(
                "cublasDtrsm",
                (cublas, handle) -> cublas.cublasDtrsm_v2(
                        handle,
                        fromRight ? LEFT : RIGHT,
                        LOWER,
                        operation(transposed),
                        NON_UNIT,
                        b.columns(),
                        b.rows(),
                        number(alpha),
                        u.address(),
                        u.stride(),
                        b.address(),
                        b.stride()));
    }

    /** {@code b = b uᵀ} for an upper triangular u. */
    void multiplyTriangleFromRight(Matrix u, Matrix b) {
        blas.call(
                "cublasDtrmm",
                (cublas, handle) -> cublas.cublasDtrmm_v2(
                        handle,
                        LEFT,
                        LOWER,
                        OP_T,
                        NON_UNIT,
                        b.columns(),
                        b.rows(),
                        number(1),
                        u.address(),
                        u.stride(),
                        b.address(),
                        b.stride(),
                        b.address(),
                        b.stride()));
    }

    /** {@code target = aᵀ}; the two must not overlap. */
    void transpose(Matrix a, Matrix target) {
        blas.call(
                "cublasDgeam",
                (cublas, handle) -> cublas.cublasDgeam(
                        handle,
                        OP_T,
                        OP_N,
                        target.columns(),
                        target.rows(),
                        number(1),
                        a.address(),
                        a.stride(),
                        number(0),
                        target.address(),
                        target.stride(),
                        target.address(),
                        target.stride()));
    }

    /** {@code sum = factor term + share sum}. */
    void combine(double factor, Matrix term, double share, Matrix sum) {
        blas.call(
                "cublasDgeam",
                (cublas, handle) -> cublas.cublasDgeam(
                        handle,
                        OP_N,
                        OP_N,
                        sum.columns(),
                        sum.rows(),
                        number(factor),
                        term.address(),
                        term.stride(),
                        number(share),
                        sum.address(),
                        sum.stride(),
                        sum.address(),
                        sum.stride()));
    }

    /** Copies the elements of a vector, with their distances in memory. */
    void copy(Matrix x, int stepX, Matrix y, int stepY, int count) {
        blas.call(
                "cublasDcopy",
                (cublas, handle) -> cublas.cublasDcopy_v2(handle, count, x.address(), stepX, y.address(), stepY));
    }

    /** The sum of the products of the elements of two vectors without gaps. */
    double dot(Matrix x, Matrix y, int count) {
        double[] result = new double[1];
        blas.call(
                "cublasDdot",
                (cublas, handle) -> cublas.cublasDdot_v2(handle, count, x.address(), 1, y.address(), 1, result));
        return result[0];
    }

    /** Multiplies the elements of a row by those of another one. */
    void scale(Matrix row, Matrix factors, int count) {
        blas.call(
                "cublasDdgmm",
                (cublas, handle) -> cublas.cublasDdgmm(
                        handle, LEFT, count, 1, row.address(), count, factors.address(), 1, row.address(), count));
    }

    private static int operation(boolean transposed) {
        return transposed ? OP_T : OP_N;
    }

    private static double[] number(double value) {
        return new double[] {value};
    }
}
