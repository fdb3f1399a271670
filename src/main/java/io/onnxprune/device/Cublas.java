// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.device;

import com.sun.jna.Library;

/**
 * The functions of cuBLAS that are used here, as its header {@code cublas_api.h} declares them. Matrices are
 * column-major. The first argument is the handle; matrices and vectors are addresses on the device, each followed by
 * its stride; factors and results that are numbers are arrays of one element on the host. The result is a status.
 */
public interface Cublas extends Library {
    /** {@code CUBLAS_OP_N}: a matrix as it is. */
    int OP_N = 0;
    /** {@code CUBLAS_OP_T}: the transposed matrix. */
    int OP_T = 1;
    /** {@code CUBLAS_FILL_MODE_LOWER}. */
    int LOWER = 0;
    /** {@code CUBLAS_FILL_MODE_UPPER}. */
    int UPPER = 1;
    /** {@code CUBLAS_SIDE_LEFT}. */
    int LEFT = 0;
    /** {@code CUBLAS_SIDE_RIGHT}. */
    int RIGHT = 1;
    /** {@code CUBLAS_DIAG_NON_UNIT}. */
    int NON_UNIT = 0;

    int cublasCreate_v2(long[] handle);

    String cublasGetStatusString(int status);

    int cublasDgemm_v2(
            long handle,
            int transA,
            int transB,
            int m,
            int n,
            int k,
            double[] alpha,
            long a,
            int lda,
            long b,
            int ldb,
            double[] beta,
            long c,
            int ldc);

    int cublasDgemv_v2(
            long handle,
            int trans,
            int m,
            int n,
            double[] alpha,
            long a,
            int lda,
            long x,
            int incX,
            double[] beta,
            long y,
            int incY);

    int cublasDsymv_v2(
            long handle,
            int fill,
            int n,
            double[] alpha,
            long a,
            int lda,
            long x,
            int incX,
            double[] beta,
            long y,
            int incY);

    int cublasDsyrk_v2(
            long handle,
            int fill,
            int trans,
            int n,
            int k,
            double[] alpha,
            long a,
            int lda,
            double[] beta,
            long c,
            int ldc);

    int cublasDsyr2k_v2(
            long handle,
            int fill,
            int trans,
            int n,
            int k,
            double[] alpha,
            long a,
            int lda,
            long b,
            int ldb,
            double[] beta,
            long c,
            int ldc);

    int cublasDtrsm_v2(
            long handle,
            int side,
            int fill,
            int trans,
            int diagonal,
            int m,
            int n,
            double[] alpha,
            long a,
            int lda,
            long b,
            int ldb);

    /** Unlike in BLAS, the result has a place of its own; {@code c} may be {@code b}. */
    int cublasDtrmm_v2(
            long handle,
            int side,
            int fill,
            int trans,
            int diagonal,
            int m,
            int n,
            double[] alpha,
            long a,
            int lda,
            long b,
            int ldb,
            long c,
            int ldc);

    int cublasDswap_v2(long handle, int n, long x, int incX, long y, int incY);

    int cublasDcopy_v2(long handle, int n, long x, int incX, long y, int incY);

    int cublasDdot_v2(long handle, int n, long x, int incX, long y, int incY, double[] result);

    /** {@code c = alpha op(a) + beta op(b)}; {@code c} may be {@code b} when that is not transposed. */
    int cublasDgeam(
            long handle,
            int transA,
            int transB,
            int m,
            int n,
            double[] alpha,
            long a,
            int lda,
            double[] beta,
            long b,
            int ldb,
            long c,
            int ldc);

    /** {@code c = diag(x) a} when the side is left; {@code c} may be {@code a}. */
    int cublasDdgmm(long handle, int side, int m, int n, long a, int lda, long x, int incX, long c, int ldc);
}
