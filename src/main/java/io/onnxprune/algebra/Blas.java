// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.algebra;

import static org.bytedeco.openblas.global.openblas_nolapack.CblasLeft;
import static org.bytedeco.openblas.global.openblas_nolapack.CblasNoTrans;
import static org.bytedeco.openblas.global.openblas_nolapack.CblasNonUnit;
import static org.bytedeco.openblas.global.openblas_nolapack.CblasRight;
import static org.bytedeco.openblas.global.openblas_nolapack.CblasRowMajor;
import static org.bytedeco.openblas.global.openblas_nolapack.CblasTrans;
import static org.bytedeco.openblas.global.openblas_nolapack.CblasUpper;

import io.onnxprune.device.Device;
import java.util.Arrays;
import org.bytedeco.openblas.global.openblas_nolapack;

/**
 * Matrix products, rank updates and triangular solves, each one call of OpenBLAS, or of cuBLAS for operands on a GPU. Of
 * a symmetric matrix only the upper triangle is read and written; the lower one is undefined until {@link #mirror} fills
 * it. All methods throw {@link IllegalArgumentException} when the sizes of their operands do not match, or when the
 * operands live in different places.
 */
public final class Blas {
    private Blas() {}

    /** Sets the number of threads of the whole process; 0 for as many as there are cores. */
    public static void setThreads(int threads) {
        NativeBlas.setThreads(threads);
    }

    /**
     * Selects the device for large matrices of the whole process; the default is the host.
     *
     * @throws io.onnxprune.diag.UserException when cuBLAS is not found or does not start
     * @throws IllegalArgumentException when the device is neither the host nor an NVIDIA GPU
     */
    public static void useDevice(Device device) {
        useDevice(device, Place.MIN_ROWS);
    }

    /**
     * Selects the device for large matrices of the whole process.
     *
     * @param minRows fewest rows of such matrices; those with less stay on the host
     * @throws io.onnxprune.diag.UserException when cuBLAS is not found or does not start
     * @throws IllegalArgumentException when the device is neither the host nor an NVIDIA GPU
     */
    public static void useDevice(Device device, int minRows) {
        Place.use(device, minRows);
    }

    /** Selects the host for the matrices of the whole process. */
    public static void useHost() {
        Place.useHost();
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
        if (!c.place().isHost()) {
            c.place().blas().multiply(alpha, a, transposeA, b, transposeB, beta, c);
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
        if (!y.place().isHost()) {
            y.place().blas().vector(alpha, a, transposed, x, stepX, beta, y, stepY);
            return;
        }
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
        if (n > 0 && !a.place().isHost()) {
            a.place().blas().multiplySymmetric(a, x, y);
        } else if (n > 0) {
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

    /**
     * The product {@code a b} of matrices of the host, in a new matrix of the host. It is computed on the selected
     * device when it is large.
     */
    public static Matrix largeProduct(Matrix a, Matrix b) {
        long elements = (long) a.rows() * a.columns() + (long) b.rows() * b.columns() + (long) a.rows() * b.columns();
        Place place = Place.forWork(Math.min(a.columns(), Math.min(a.rows(), b.columns())), elements);
        try (Matrix left = place.borrow(a);
                Matrix right = place.borrow(b)) {
            return Place.HOST.move(product(left, right));
        }
    }

    /** The product {@code a b}, in a new matrix where the operands are. */
    public static Matrix product(Matrix a, Matrix b) {
        Matrix result = a.place().zeros(a.rows(), b.columns());
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
        if (!c.place().isHost()) {
            c.place().blas().rankUpdate(alpha, a, transposed, beta, c);
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
        if (c.rows() > 0 && a.rows() > 0 && !c.place().isHost()) {
            c.place().blas().subtractTwice(a, b, c);
        } else if (c.rows() > 0 && a.rows() > 0) {
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
        exchange(a.block(i, i, 1, 1), 1, a.block(j, j, 1, 1), 1, 1);
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
        if (count > 0 && !x.place().isHost()) {
            x.place().blas().exchange(x, stepX, y, stepY, count);
        } else if (count > 0) {
            openblas_nolapack.cblas_dswap(count, x.pointer(), stepX, y.pointer(), stepY);
        }
    }

    /**
     * Solves with an upper triangular {@code u}: {@code b = u⁻¹b}, or {@code b = u⁻ᵀb} when transposed (BLAS dtrsm).
     */
    public static void solveTriangle(Matrix u, boolean transposed, Matrix b) {
        check(u.rows() == u.columns() && u.rows() == b.rows(), "triangular solution", u, b);
        triangular(false, transposed, 1, u, b);
    }

    /** Solves from the right with an upper triangular {@code u}: {@code b = alpha b u⁻¹} (BLAS dtrsm). */
    public static void solveTriangleFromRight(double alpha, Matrix u, Matrix b) {
        check(u.rows() == u.columns() && u.rows() == b.columns(), "triangular solution", u, b);
        triangular(true, false, alpha, u, b);
    }

    private static void triangular(boolean fromRight, boolean transposed, double alpha, Matrix u, Matrix b) {
        if (b.rows() == 0 || b.columns() == 0) {
            return;
        }
        if (!b.place().isHost()) {
            b.place().blas().solveTriangle(fromRight, transposed, alpha, u, b);
            return;
        }
        openblas_nolapack.cblas_dtrsm(
                CblasRowMajor,
                fromRight ? CblasRight : CblasLeft,
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
        if (!b.place().isHost()) {
            b.place().blas().multiplyTriangleFromRight(u, b);
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
        if (!a.place().isHost()) {
            mirrorOnDevice(a, tile);
            return;
        }
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

    /** Mirrors by halving; blocks across the diagonal are transposed on the device, small ones mirrored on the host. */
    private static void mirrorOnDevice(Matrix a, int smallest) {
        int n = a.rows();
        if (n <= 1) {
            return;
        }
        if (n <= smallest) {
            try (Matrix host = Place.HOST.borrow(a)) {
                mirror(host);
                a.assign(host);
            }
            return;
        }
        int half = n / 2;
        mirrorOnDevice(a.block(0, 0, half, half), smallest);
        mirrorOnDevice(a.block(half, half, n - half, n - half), smallest);
        a.place().blas().transpose(a.block(0, half, half, n - half), a.block(half, 0, n - half, half));
    }

    private static void check(boolean fits, String what, Matrix... operands) {
        if (!fits) {
            throw new IllegalArgumentException("no " + what + " of matrices " + Arrays.toString(operands));
        }
        for (Matrix operand : operands) {
            if (operand.place() != operands[0].place()) {
                throw new IllegalArgumentException("no " + what + " of matrices in different places");
            }
        }
    }
}
