// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.algebra;

import static org.bytedeco.openblas.global.openblas_nolapack.CblasLeft;
import static org.bytedeco.openblas.global.openblas_nolapack.CblasNoTrans;
import static org.bytedeco.openblas.global.openblas_nolapack.CblasNonUnit;
import static org.bytedeco.openblas.global.openblas_nolapack.CblasRight;
import static org.bytedeco.openblas.global.openblas_nolapack.CblasRowMajor;
import static org.bytedeco.openblas.global.openblas_nolapack.CblasTrans;
import static org.bytedeco.openblas.global.openblas_nolapack.CblasUpper;

import java.util.Arrays;
import org.bytedeco.openblas.global.openblas_nolapack;

/**
 * Matrix products, rank updates and triangular solves, each one call of OpenBLAS. Of a symmetric matrix only the upper
 * triangle is read and written; the lower one is undefined until {@link #mirror} fills it. All methods throw
 * {@link IllegalArgumentException} when the sizes of their operands do not match.
 */
public final class Blas {
    private Blas() {}

    /** Sets the number of threads of the whole process; 0 for as many as there are cores. */
    public static void setThreads(int threads) {
        NativeBlas.setThreads(threads);
    }

    /**
     * {@code c = alpha op(a) op(b) + beta c}, where op transposes its matrix when the flag after it is set (BLAS
     * dgemm).
     */
    public static void multiply(
            double alpha, Matrix a, boolean transposeA, Matrix b, boolean transposeB, double beta, Matrix c) {
        int inner = transposeA ? a.rows() : a.columns();
        check(
                (transposeA ? a.columns() : a.rows()) == c.rows()
                        && (transposeB ? b.columns() : b.rows()) == inner
                        && (transposeB ? b.rows() : b.columns()) == c.columns(),
                "product",
                a,
                b,
                c);
        if (c.rows() == 0 || c.columns() == 0) {
            return;
        }
        if (inner > 0 && c.rows() == 1) {
            vector(alpha, b, !transposeB, a, transposeA ? a.stride() : 1, beta, c, 1);
            return;
        }
        if (inner > 0 && c.columns() == 1) {
            vector(alpha, a, transposeA, b, transposeB ? 1 : b.stride(), beta, c, c.stride());
            return;
        }
        openblas_nolapack.cblas_dgemm(
                CblasRowMajor,
                transposeA ? CblasTrans : CblasNoTrans,
                transposeB ? CblasTrans : CblasNoTrans,
                c.rows(),
                c.columns(),
                inner,
                alpha,
                a.pointer(),
                a.stride(),
                b.pointer(),
                b.stride(),
                beta,
                c.pointer(),
                c.stride());
    }

    /**
     * {@code y = alpha op(a) x + beta y} (BLAS dgemv).
     *
     * @param stepX distance of the elements of x in memory
     * @param stepY distance of the elements of y in memory
     */
    private static void vector(
            double alpha, Matrix a, boolean transposed, Matrix x, int stepX, double beta, Matrix y, int stepY) {
        openblas_nolapack.cblas_dgemv(
                CblasRowMajor,
                transposed ? CblasTrans : CblasNoTrans,
                a.rows(),
                a.columns(),
                alpha,
                a.pointer(),
                a.stride(),
                x.pointer(),
                stepX,
                beta,
                y.pointer(),
                stepY);
    }

    /** {@code y = a x} for a symmetric {@code a} and column vectors {@code x} and {@code y} (BLAS dsymv). */
    public static void multiplySymmetric(Matrix a, Matrix x, Matrix y) {
        int n = a.rows();
        check(
                a.columns() == n && x.rows() == n && y.rows() == n && x.columns() == 1 && y.columns() == 1,
                "product",
                a,
                x,
                y);
        if (n > 0) {
            openblas_nolapack.cblas_dsymv(
                    CblasRowMajor,
                    CblasUpper,
                    n,
                    1,
                    a.pointer(),
                    a.stride(),
                    x.pointer(),
                    x.stride(),
                    0,
                    y.pointer(),
                    y.stride());
        }
    }

    /** The product {@code a b}, in a new matrix. */
    public static Matrix product(Matrix a, Matrix b) {
        Matrix result = Matrix.zeros(a.rows(), b.columns());
        multiply(1, a, false, b, false, 0, result);
        return result;
    }

    /**
     * Symmetric rank update of {@code c} (BLAS dsyrk): {@code c = alpha aᵀ a + beta c} when transposed, else
     * {@code c = alpha a aᵀ + beta c}.
     */
    public static void rankUpdate(double alpha, Matrix a, boolean transposed, double beta, Matrix c) {
        int size = transposed ? a.columns() : a.rows();
        check(size == c.rows() && size == c.columns(), "rank update", a, c);
        if (size == 0) {
            return;
        }
        openblas_nolapack.cblas_dsyrk(
                CblasRowMajor,
                CblasUpper,
                transposed ? CblasTrans : CblasNoTrans,
                size,
                transposed ? a.rows() : a.columns(),
                alpha,
                a.pointer(),
                a.stride(),
                beta,
                c.pointer(),
                c.stride());
    }

    /** Symmetric rank-2 update {@code c = c - aᵀb - bᵀa} (BLAS dsyr2k). */
    public static void subtractTwice(Matrix a, Matrix b, Matrix c) {
        check(
                a.rows() == b.rows()
                        && a.columns() == b.columns()
                        && c.rows() == a.columns()
                        && c.columns() == c.rows(),
                "rank update",
                a,
                b,
                c);
        if (c.rows() > 0 && a.rows() > 0) {
            openblas_nolapack.cblas_dsyr2k(
                    CblasRowMajor,
                    CblasUpper,
                    CblasTrans,
                    c.rows(),
                    a.rows(),
                    -1,
                    a.pointer(),
                    a.stride(),
                    b.pointer(),
                    b.stride(),
                    1,
                    c.pointer(),
                    c.stride());
        }
    }

    /** {@code c = a bᵀ} for a product that is known to be symmetric; only the upper triangle is computed. */
    public static void symmetricProduct(Matrix a, Matrix b, Matrix c) {
        int n = c.rows();
        check(a.rows() == n && b.rows() == n && c.columns() == n, "symmetric product", a, b, c);
        int tile = 1024;
        for (int top = 0; top < n; top += tile) {
            int height = Math.min(tile, n - top);
            Matrix rows = a.block(top, 0, height, a.columns());
            Matrix remaining = b.block(top, 0, n - top, b.columns());
            multiply(1, rows, false, remaining, true, 0, c.block(top, top, height, n - top));
        }
    }

    /** Exchanges rows i and j and columns i and j of a symmetric matrix, {@code i <= j}. */
    public static void exchange(Matrix a, int i, int j) {
        int n = a.rows();
        check(a.columns() == n && 0 <= i && i <= j && j < n, "exchange", a);
        if (i == j) {
            return;
        }
        double first = a.get(i, i);
        a.set(i, i, a.get(j, j));
        a.set(j, j, first);
        exchangeColumns(a.block(0, 0, i, n), i, j);
        exchange(a.block(i, i + 1, 1, j - i - 1), 1, a.block(i + 1, j, j - i - 1, 1), a.stride(), j - i - 1);
        exchange(a.block(i, j + 1, 1, n - j - 1), 1, a.block(j, j + 1, 1, n - j - 1), 1, n - j - 1);
    }

    /** Exchanges columns {@code i} and {@code j}. */
    public static void exchangeColumns(Matrix a, int i, int j) {
        if (i != j) {
            exchange(a.block(0, i, a.rows(), 1), a.stride(), a.block(0, j, a.rows(), 1), a.stride(), a.rows());
        }
    }

    private static void exchange(Matrix x, int stepX, Matrix y, int stepY, int count) {
        if (count > 0) {
            openblas_nolapack.cblas_dswap(count, x.pointer(), stepX, y.pointer(), stepY);
        }
    }

    /**
     * Solves with an upper triangular {@code u}: {@code b = u⁻¹b}, or {@code b = u⁻ᵀb} when transposed (BLAS dtrsm).
     */
    public static void solveTriangle(Matrix u, boolean transposed, Matrix b) {
        check(u.rows() == u.columns() && u.rows() == b.rows(), "triangular solution", u, b);
        triangular(CblasLeft, transposed, 1, u, b);
    }

    /** Solves from the right with an upper triangular {@code u}: {@code b = alpha b u⁻¹} (BLAS dtrsm). */
    public static void solveTriangleFromRight(double alpha, Matrix u, Matrix b) {
        check(u.rows() == u.columns() && u.rows() == b.columns(), "triangular solution", u, b);
        triangular(CblasRight, false, alpha, u, b);
    }

    private static void triangular(int side, boolean transposed, double alpha, Matrix u, Matrix b) {
        if (b.rows() == 0 || b.columns() == 0) {
            return;
        }
        openblas_nolapack.cblas_dtrsm(
                CblasRowMajor,
                side,
                CblasUpper,
                transposed ? CblasTrans : CblasNoTrans,
                CblasNonUnit,
                b.rows(),
                b.columns(),
                alpha,
                u.pointer(),
                u.stride(),
                b.pointer(),
                b.stride());
    }

    /** Multiplies from the right by an upper triangular {@code u}: {@code b = b uᵀ} (BLAS dtrmm). */
    public static void multiplyTriangleFromRight(Matrix u, Matrix b) {
        check(u.rows() == u.columns() && u.rows() == b.columns(), "triangular product", u, b);
        if (b.rows() == 0 || b.columns() == 0) {
            return;
        }
        openblas_nolapack.cblas_dtrmm(
                CblasRowMajor,
                CblasRight,
                CblasUpper,
                CblasTrans,
                CblasNonUnit,
                b.rows(),
                b.columns(),
                1,
                u.pointer(),
                u.stride(),
                b.pointer(),
                b.stride());
    }

    /** Copies the upper triangle of a square matrix to the lower one. */
    public static void mirror(Matrix a) {
        check(a.rows() == a.columns(), "mirror", a);
        int size = a.rows();
        int tile = 64;
        for (int top = 0; top < size; top += tile) {
            for (int left = top; left < size; left += tile) {
                for (int i = top; i < Math.min(size, top + tile); i++) {
                    for (int j = Math.max(left, i + 1); j < Math.min(size, left + tile); j++) {
                        a.set(j, i, a.get(i, j));
                    }
                }
            }
        }
    }

    private static void check(boolean fits, String what, Matrix... operands) {
        if (!fits) {
            throw new IllegalArgumentException("no " + what + " of matrices " + Arrays.toString(operands));
        }
    }
}
