// SPDX-License-Identifier: Apache-2.0
// Stands in for libcublas.so.13 where there is no GPU. Column-major, with cuBLAS's own signatures (cublas_api.h, with
// plain integers for its enumerations) and its checks of arguments.
#include <stdlib.h>

enum { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7 };
enum { N = 0, T = 1, LOWER = 0, UPPER = 1, LEFT = 0, RIGHT = 1, NON_UNIT = 0, UNIT = 1 };

typedef struct context *handle_t;

static int the_context;

static handle_t context(void) {
    return (handle_t) &the_context;
}

#define CHECK(condition)                      \
    do {                                      \
        if (handle != context()) {            \
            return NOT_INITIALIZED;           \
        }                                     \
        if (!(condition)) {                   \
            return INVALID_VALUE;             \
        }                                     \
    } while (0)

#define BOOLEAN(value) ((value) == 0 || (value) == 1)

static int at_least(int stride, int rows) {
    return stride >= rows && stride >= 1;
}

/* Element (i, j) of op(a). */
static double element(const double *a, int lda, int trans, int i, int j) {
    return trans == T ? a[j + (size_t) i * lda] : a[i + (size_t) j * lda];
}

/* Element (i, j) of a symmetric matrix of which one triangle is stored. */
static double symmetric(const double *a, int lda, int fill, int i, int j) {
    int stored = fill == LOWER ? i >= j : i <= j;
    return stored ? a[i + (size_t) j * lda] : a[j + (size_t) i * lda];
}

/* beta c, where c may be undefined when beta is 0. */
static double scaled(double beta, double c) {
    return beta == 0 ? 0 : beta * c;
}

int cublasCreate_v2(handle_t *handle) {
    *handle = context();
    return SUCCESS;
}

const char *cublasGetStatusString(int status) {
    switch (status) {
        case INVALID_VALUE:
            return "CUBLAS_STATUS_INVALID_VALUE";
        case NOT_INITIALIZED:
            return "CUBLAS_STATUS_NOT_INITIALIZED";
        default:
            return "unknown";
    }
}

int cublasDgemm_v2(handle_t handle, int transa, int transb, int m, int n, int k, const double *alpha, const double *a,
        int lda, const double *b, int ldb, const double *beta, double *c, int ldc) {
    CHECK(BOOLEAN(transa) && BOOLEAN(transb) && m >= 0 && n >= 0 && k >= 0 && at_least(lda, transa == N ? m : k)
            && at_least(ldb, transb == N ? k : n) && at_least(ldc, m));
    for (int j = 0; j < n; j++) {
        for (int i = 0; i < m; i++) {
            double sum = 0;
            for (int l = 0; l < k; l++) {
                sum += element(a, lda, transa, i, l) * element(b, ldb, transb, l, j);
            }
            double *target = &c[i + (size_t) j * ldc];
            *target = *alpha * sum + scaled(*beta, *target);
        }
    }
    return SUCCESS;
}

int cublasDgemv_v2(handle_t handle, int trans, int m, int n, const double *alpha, const double *a, int lda,
        const double *x, int incx, const double *beta, double *y, int incy) {
    CHECK(BOOLEAN(trans) && m >= 0 && n >= 0 && at_least(lda, m) && incx != 0 && incy != 0);
    int rows = trans == N ? m : n;
    int inner = trans == N ? n : m;
    for (int i = 0; i < rows; i++) {
        double sum = 0;
        for (int l = 0; l < inner; l++) {
            sum += element(a, lda, trans, i, l) * x[(size_t) l * incx];
        }
        double *target = &y[(size_t) i * incy];
        *target = *alpha * sum + scaled(*beta, *target);
    }
    return SUCCESS;
}

int cublasDsymv_v2(handle_t handle, int fill, int n, const double *alpha, const double *a, int lda, const double *x,
        int incx, const double *beta, double *y, int incy) {
    CHECK(BOOLEAN(fill) && n >= 0 && at_least(lda, n) && incx != 0 && incy != 0);
    for (int i = 0; i < n; i++) {
        double sum = 0;
        for (int l = 0; l < n; l++) {
            sum += symmetric(a, lda, fill, i, l) * x[(size_t) l * incx];
        }
        double *target = &y[(size_t) i * incy];
        *target = *alpha * sum + scaled(*beta, *target);
    }
    return SUCCESS;
}

int cublasDsyrk_v2(handle_t handle, int fill, int trans, int n, int k, const double *alpha, const double *a, int lda,
        const double *beta, double *c, int ldc) {
    CHECK(BOOLEAN(fill) && BOOLEAN(trans) && n >= 0 && k >= 0 && at_least(lda, trans == N ? n : k)
            && at_least(ldc, n));
    for (int j = 0; j < n; j++) {
        for (int i = fill == LOWER ? j : 0; i < (fill == LOWER ? n : j + 1); i++) {
            double sum = 0;
            for (int l = 0; l < k; l++) {
                sum += element(a, lda, trans, i, l) * element(a, lda, trans, j, l);
            }
            double *target = &c[i + (size_t) j * ldc];
            *target = *alpha * sum + scaled(*beta, *target);
        }
    }
    return SUCCESS;
}

int cublasDsyr2k_v2(handle_t handle, int fill, int trans, int n, int k, const double *alpha, const double *a, int lda,
        const double *b, int ldb, const double *beta, double *c, int ldc) {
    CHECK(BOOLEAN(fill) && BOOLEAN(trans) && n >= 0 && k >= 0 && at_least(lda, trans == N ? n : k)
            && at_least(ldb, trans == N ? n : k) && at_least(ldc, n));
    for (int j = 0; j < n; j++) {
        for (int i = fill == LOWER ? j : 0; i < (fill == LOWER ? n : j + 1); i++) {
            double sum = 0;
            for (int l = 0; l < k; l++) {
                sum += element(a, lda, trans, i, l) * element(b, ldb, trans, j, l)
                        + element(b, ldb, trans, i, l) * element(a, lda, trans, j, l);
            }
            double *target = &c[i + (size_t) j * ldc];
            *target = *alpha * sum + scaled(*beta, *target);
        }
    }
    return SUCCESS;
}

/* Solves op(a) x = b for one vector, where step is the distance of its elements. */
static void solve(int lower, int trans, int diag, int n, const double *a, int lda, double *b, size_t step) {
    for (int t = 0; t < n; t++) {
        int i = lower ? t : n - 1 - t;
        double sum = b[i * step];
        for (int j = lower ? 0 : i + 1; j < (lower ? i : n); j++) {
            sum -= element(a, lda, trans, i, j) * b[j * step];
        }
        b[i * step] = diag == UNIT ? sum : sum / element(a, lda, trans, i, i);
    }
}

int cublasDtrsm_v2(handle_t handle, int side, int fill, int trans, int diag, int m, int n, const double *alpha,
        const double *a, int lda, double *b, int ldb) {
    CHECK(BOOLEAN(side) && BOOLEAN(fill) && BOOLEAN(trans) && BOOLEAN(diag) && m >= 0 && n >= 0
            && at_least(lda, side == LEFT ? m : n) && at_least(ldb, m));
    for (int j = 0; j < n; j++) {
        for (int i = 0; i < m; i++) {
            b[i + (size_t) j * ldb] *= *alpha;
        }
    }
    /* Whether op(a) is lower triangular. */
    int lower = (fill == LOWER) == (trans == N);
    if (side == LEFT) {
        for (int j = 0; j < n; j++) {
            solve(lower, trans, diag, m, a, lda, &b[(size_t) j * ldb], 1);
        }
    } else {
        /* x op(a) = b is op(a)' x' = b'. */
        for (int i = 0; i < m; i++) {
            solve(!lower, trans == N ? T : N, diag, n, a, lda, &b[i], ldb);
        }
    }
    return SUCCESS;
}

int cublasDtrmm_v2(handle_t handle, int side, int fill, int trans, int diag, int m, int n, const double *alpha,
        const double *a, int lda, const double *b, int ldb, double *c, int ldc) {
    CHECK(BOOLEAN(side) && BOOLEAN(fill) && BOOLEAN(trans) && BOOLEAN(diag) && m >= 0 && n >= 0
            && at_least(lda, side == LEFT ? m : n) && at_least(ldb, m) && at_least(ldc, m) && (b != c || ldb == ldc));
    int lower = (fill == LOWER) == (trans == N);
    double *result = malloc(sizeof(double) * (size_t) m * n + 1);
    for (int j = 0; j < n; j++) {
        for (int i = 0; i < m; i++) {
            double sum = 0;
            for (int l = 0; l < (side == LEFT ? m : n); l++) {
                int row = side == LEFT ? i : l;
                int column = side == LEFT ? l : j;
                if (lower ? row < column : row > column) {
                    continue;
                }
                double value = row == column && diag == UNIT ? 1 : element(a, lda, trans, row, column);
                sum += value * (side == LEFT ? b[l + (size_t) j * ldb] : b[i + (size_t) l * ldb]);
            }
            result[i + (size_t) j * m] = *alpha * sum;
        }
    }
    for (int j = 0; j < n; j++) {
        for (int i = 0; i < m; i++) {
            c[i + (size_t) j * ldc] = result[i + (size_t) j * m];
        }
    }
    free(result);
    return SUCCESS;
}

int cublasDswap_v2(handle_t handle, int n, double *x, int incx, double *y, int incy) {
    CHECK(n >= 0 && incx != 0 && incy != 0);
    for (int i = 0; i < n; i++) {
        double value = x[(size_t) i * incx];
        x[(size_t) i * incx] = y[(size_t) i * incy];
        y[(size_t) i * incy] = value;
    }
    return SUCCESS;
}

int cublasDcopy_v2(handle_t handle, int n, const double *x, int incx, double *y, int incy) {
    CHECK(n >= 0 && incx != 0 && incy != 0);
    for (int i = 0; i < n; i++) {
        y[(size_t) i * incy] = x[(size_t) i * incx];
    }
    return SUCCESS;
}

int cublasDdot_v2(handle_t handle, int n, const double *x, int incx, const double *y, int incy, double *result) {
    CHECK(n >= 0 && incx != 0 && incy != 0);
    *result = 0;
    for (int i = 0; i < n; i++) {
        *result += x[(size_t) i * incx] * y[(size_t) i * incy];
    }
    return SUCCESS;
}

int cublasDgeam(handle_t handle, int transa, int transb, int m, int n, const double *alpha, const double *a, int lda,
        const double *beta, const double *b, int ldb, double *c, int ldc) {
    CHECK(BOOLEAN(transa) && BOOLEAN(transb) && m >= 0 && n >= 0 && at_least(lda, transa == N ? m : n)
            && at_least(ldb, transb == N ? m : n) && at_least(ldc, m) && a != c
            && (b != c || (ldb == ldc && transb == N)));
    for (int j = 0; j < n; j++) {
        for (int i = 0; i < m; i++) {
            double other = *beta == 0 ? 0 : *beta * element(b, ldb, transb, i, j);
            c[i + (size_t) j * ldc] = *alpha * element(a, lda, transa, i, j) + other;
        }
    }
    return SUCCESS;
}

int cublasDdgmm(handle_t handle, int side, int m, int n, const double *a, int lda, const double *x, int incx,
        double *c, int ldc) {
    CHECK(BOOLEAN(side) && m >= 0 && n >= 0 && at_least(lda, m) && at_least(ldc, m) && (a != c || lda == ldc));
    for (int j = 0; j < n; j++) {
        for (int i = 0; i < m; i++) {
            c[i + (size_t) j * ldc] = a[i + (size_t) j * lda] * x[(size_t) (side == LEFT ? i : j) * incx];
        }
    }
    return SUCCESS;
}
