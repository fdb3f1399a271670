// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import io.onnxprune.algebra.Cholesky;
import io.onnxprune.algebra.Matrix;

/** The damped Newton step of one linear layer in the quadratic model ½ tr(Δwᵀ a Δw g) - tr(Δwᵀ c). */
public final class Newton {
    private Newton() {}

    /**
     * Solves {@code (a + λI) Δw (g + μI) = c}. λ and μ are the same share of the mean diagonals of {@code a} and
     * {@code g}.
     *
     * @param a second moment of the inputs {@code [n, n]}, symmetric
     * @param c negative gradient of the loss by the weights {@code [n, out]}; not changed
     * @param g second moment of the gradients of the outputs {@code [out, out]}, symmetric
     * @return Δw {@code [n, out]}, zero at dead channels; the caller closes it
     * @throws io.onnxprune.diag.UserException when a value is not finite or a second moment cannot be inverted
     */
    public static Matrix step(Matrix a, Matrix c, Matrix g, Damping damping) {
        damping.checkFinite(a, "second moment of the inputs");
        damping.checkFinite(c, "gradient");
        damping.checkFinite(g, "second moment of the gradients");
        try (Matrix left = c.copy()) {
            solve(a, left, damping);
            try (Matrix right = left.transposed()) {
                solve(g, right, damping);
                return right.transposed();
            }
        }
    }

    private static void solve(Matrix moment, Matrix right, Damping damping) {
        double[] zeros = new double[right.columns()];
        for (int i = 0; i < moment.rows(); i++) {
            if (moment.get(i, i) <= 0) {
                right.setRow(i, zeros);
            }
        }
        double mean = Damping.meanDiagonal(moment);
        Matrix factor = damping.raise(moment.rows(), share -> Damping.factored(moment.copy(), share * mean));
        try (factor) {
            Cholesky.solve(factor, right);
        }
    }
}
