// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Matrix;
import java.util.Random;

/**
 * Measures how far the downdated matrices of {@link Downdate} are from their definitions, by products with one random
 * vector.
 */
final class ResidualCheck {
    private final LayerProblem layer;
    private final double lambda;
    private final int n;

    private ResidualCheck(LayerProblem layer, double lambda) {
        this.layer = layer;
        this.lambda = lambda;
        n = layer.a().rows();
    }

    /**
     * The larger of two relative residuals in the maximum norm: that of {@code a_KK p x}, which should be {@code x},
     * and that of {@code s x}, which should be {@code p a_K: w g wᵀ a_:K p x}. Takes about as long as reading all
     * matrices once.
     *
     * @param remaining the remaining channels K
     * @param p inverse of the damped second moment over K, upper triangle
     * @param s the matrix w g wᵀ over K with optimal weights, upper triangle
     */
    static double of(LayerProblem layer, double lambda, int[] remaining, Matrix p, Matrix s) {
        return new ResidualCheck(layer, lambda).measure(remaining, p, s);
    }

    private double measure(int[] remaining, Matrix p, Matrix s) {
        int size = remaining.length;
        Random random = new Random(size);
        try (Matrix x = Matrix.zeros(size, 1);
                Matrix px = Matrix.zeros(size, 1);
                Matrix expected = Matrix.zeros(size, 1);
                Matrix found = Matrix.zeros(size, 1);
                Matrix full = Matrix.zeros(n, 1);
                Matrix image = Matrix.zeros(n, 1)) {
            for (int i = 0; i < size; i++) {
                x.set(i, 0, isDead(remaining[i]) ? 0 : random.nextDouble() - 0.5);
            }
            multiply(p, x, px);
            for (int i = 0; i < size; i++) {
                full.set(remaining[i], 0, px.get(i, 0));
            }
            moment(full, image);
            gather(image, remaining, found);
            double error = distance(found, x);
            weights(image, full);
            moment(full, image);
            gather(image, remaining, px);
            multiply(p, px, expected);
            multiply(s, x, found);
            return Math.max(error, distance(found, expected));
        }
    }

    /** {@code y = m x} for a symmetric matrix in any place and vectors on the host. */
    private static void multiply(Matrix m, Matrix x, Matrix y) {
        if (m.place().isHost()) {
            Blas.multiplySymmetric(m, x, y);
            return;
        }
        try (Matrix there = m.place().borrow(x);
                Matrix image = m.place().zeros(y.rows(), 1)) {
            Blas.multiplySymmetric(m, there, image);
            y.assign(image);
        }
    }

    /** {@code y = (a + λI) x}, with zeros for dead channels. */
    private void moment(Matrix x, Matrix y) {
        Blas.multiplySymmetric(layer.a(), x, y);
        for (int i = 0; i < n; i++) {
            y.set(i, 0, isDead(i) ? 0 : y.get(i, 0) + lambda * x.get(i, 0));
        }
    }

    /** {@code y = w g wᵀ x}, with zeros for dead channels. */
    private void weights(Matrix x, Matrix y) {
        int out = layer.w().columns();
        try (Matrix inner = Matrix.zeros(out, 1);
                Matrix weighted = Matrix.zeros(out, 1)) {
            Blas.multiply(1, layer.w(), true, x, false, 0, inner);
            if (layer.g() != null) {
                Blas.multiplySymmetric(layer.g(), inner, weighted);
            }
            Blas.multiply(1, layer.w(), false, layer.g() == null ? inner : weighted, false, 0, y);
        }
        for (int i = 0; i < n; i++) {
            if (isDead(i)) {
                y.set(i, 0, 0);
            }
        }
    }

    private boolean isDead(int channel) {
        return layer.a().get(channel, channel) <= 0;
    }

    private static void gather(Matrix full, int[] remaining, Matrix part) {
        for (int i = 0; i < remaining.length; i++) {
            part.set(i, 0, full.get(remaining[i], 0));
        }
    }

    private static double distance(Matrix found, Matrix expected) {
        double error = 0;
        double size = 0;
        for (int i = 0; i < found.rows(); i++) {
            error = Math.max(error, Math.abs(found.get(i, 0) - expected.get(i, 0)));
            size = Math.max(size, Math.abs(expected.get(i, 0)));
        }
        return size == 0 ? error : error / size;
    }
}
