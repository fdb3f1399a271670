// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import io.onnxprune.algebra.Cholesky;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import java.util.function.DoubleFunction;

/**
 * How second moments are made invertible: λ is added to the diagonal, and ten times as much where that is not enough.
 * Channels that never carried anything (no positive diagonal) are taken for independent of all others.
 *
 * @param share λ as a share of the mean of the positive diagonal elements
 * @param tokens positions that the second moments were summed over, for messages
 * @param label what the layer or dimension is called in messages
 * @param log where is said that more damping was needed
 */
public record Damping(double share, long tokens, String label, Log log) {
    private static final int ATTEMPTS = 4;
    /** What a share of zero is raised to. */
    private static final double LEAST = 1e-4;

    public Damping {
        if (!(share >= 0) || Double.isInfinite(share)) {
            throw new IllegalArgumentException("damping " + share);
        }
    }

    /** The mean of the positive diagonal elements of a second moment; 0 when there are none. */
    static double meanDiagonal(Matrix a) {
        double sum = 0;
        int count = 0;
        for (int i = 0; i < a.rows(); i++) {
            double value = a.get(i, i);
            if (value > 0) {
                sum += value;
                count++;
            }
        }
        return count == 0 ? 0 : sum / count;
    }

    /** Adds λ to the diagonal of {@code a} and separates dead channels, in the upper triangle. */
    static void apply(Matrix a, double lambda) {
        int n = a.rows();
        for (int i = 0; i < n; i++) {
            if (a.get(i, i) > 0) {
                a.add(i, i, lambda);
                continue;
            }
            for (int j = 0; j < n; j++) {
                a.set(Math.min(i, j), Math.max(i, j), 0);
            }
            a.set(i, i, 1);
        }
    }

    /**
     * Calls {@code attempt} with growing shares until it has a result.
     *
     * @param channels size of the second moment, for messages
     * @param attempt what throws {@link SingularException} when the matrix is not positive definite with this share
     * @throws UserException when it never was
     */
    <T> T raise(int channels, DoubleFunction<T> attempt) {
        double tried = share;
        for (int i = 0; i < ATTEMPTS; i++) {
            try {
                T result = attempt.apply(tried);
                if (i > 0) {
                    log.warn(
                            "%s: the second moment of %d channels over %d tokens is singular; damping raised from %s to %s"
                                    .formatted(label, channels, tokens, share, tried));
                }
                return result;
            } catch (SingularException e) {
                tried = tried == 0 ? LEAST : tried * 10;
            }
        }
        String remedy = tokens < channels
                ? "calibrate with at least " + channels + " tokens"
                : "the inputs depend on each other, so raise the damping";
        throw new UserException(
                "%s: the second moment of its %d channels over %d tokens cannot be inverted, even with damping %s; %s"
                        .formatted(label, channels, tokens, tried / 10, remedy));
    }

    /** @throws UserException when a number is infinite or none */
    void checkFinite(Matrix matrix, String what) {
        if (matrix != null && !matrix.isFinite()) {
            throw new UserException("%s: the %s has numbers that are not finite".formatted(label, what));
        }
    }

    /**
     * Makes of {@code a} the factor of {@code a + λI}.
     *
     * @throws SingularException when that is not positive definite; {@code a} is closed then
     */
    static Matrix factored(Matrix a, double lambda) {
        apply(a, lambda);
        if (Cholesky.factor(a)) {
            return a;
        }
        a.close();
        throw new SingularException();
    }
}
