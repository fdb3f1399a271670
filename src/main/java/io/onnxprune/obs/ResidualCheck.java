// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Matrix;
import java.util.Random;

/** How far a downdated inverse and what belongs to it are from what the definitions say, by products with one vector. */
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
     * The larger of two relative errors, in the largest element: of {@code a_KK p x}, which is {@code x}, and of
     * {@code s x}, which is {@code p a_K: w g wᵀ a_:K p x}. Takes about the time to read all matrices once.
     *
     * @param left the channels K that are left
     * @param p their inverse, upper triangle
     * @param s their products, upper triangle
     */
    static double of(LayerProblem layer, double lambda, int[] left, Matrix p, Matrix s) {
        return new ResidualCheck(layer, lambda).measure(left, p, s);
    }

    private double measure(int[] left, Matrix p, Matrix s) {
        int size = left.length;
        Random random = new Random(size);
        try (Matrix x = Matrix.zeros(size, 1);
                Matrix px = Matrix.zeros(size, 1);
                Matrix expected = Matrix.zeros(size, 1);
                Matrix found = Matrix.zeros(size, 1);
                Matrix whole = Matrix.zeros(n, 1);
                Matrix image = Matrix.zeros(n, 1)) {
            for (int i = 0; i < size; i++) {
                x.set(i, 0, dead(left[i]) ? 0 : random.nextDouble() - 0.5);
            }
            Blas.multiplySymmetric(p, x, px);
            for (int i = 0; i < size; i++) {
                whole.set(left[i], 0, px.get(i, 0));
            }
            moment(whole, image);
            gather(image, left, found);
            double error = distance(found, x);
            weights(image, whole);
            moment(whole, image);
            gather(image, left, px);
            Blas.multiplySymmetric(p, px, expected);
            Blas.multiplySymmetric(s, x, found);
            return Math.max(error, distance(found, expected));
        }
    }

    /** {@code y = (a + λI) x}; channels that never carried anything have zeros in both. */
    private void moment(Matrix x, Matrix y) {
        Blas.multiplySymmetric(layer.a(), x, y);
        for (int i = 0; i < n; i++) {
            y.set(i, 0, dead(i) ? 0 : y.get(i, 0) + lambda * x.get(i, 0));
        }
    }

    /** {@code y = w g wᵀ x}, with zeros for channels that never carried anything. */
    private void weights(Matrix x, Matrix y) {
        int out = layer.w().columns();
        try (Matrix inner = Matrix.zeros(out, 1);
                Matrix curved = Matrix.zeros(out, 1)) {
            Blas.multiply(1, layer.w(), true, x, false, 0, inner);
            if (layer.g() != null) {
                Blas.multiplySymmetric(layer.g(), inner, curved);
            }
            Blas.multiply(1, layer.w(), false, layer.g() == null ? inner : curved, false, 0, y);
        }
        for (int i = 0; i < n; i++) {
            if (dead(i)) {
                y.set(i, 0, 0);
            }
        }
    }

    private boolean dead(int channel) {
        return layer.a().get(channel, channel) <= 0;
    }

    private static void gather(Matrix whole, int[] left, Matrix part) {
        for (int i = 0; i < left.length; i++) {
            part.set(i, 0, whole.get(left[i], 0));
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
