// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import io.onnxprune.algebra.Cholesky;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.algebra.Place;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import java.util.function.DoubleFunction;

/**
 * Damping of a second moment (Hessian): λ is added to its diagonal so that it can be inverted. When that is not
 * enough, λ is raised tenfold, up to three times. A dead channel, one that carried zero at every position, has no
 * positive diagonal element. It is treated as independent of all other channels.
 *
 * @param share λ as a share of the mean of the positive diagonal elements, not negative
 * @param tokens number of positions that the second moment was summed over, for messages
 * @param label name of the layer or dimension, for messages
 * @param log receives a warning when the damping had to be raised
 */
public record Damping(double share, long tokens, String label, Log log) {
    private static final int MAX_ATTEMPTS = 4;
    /** The first share that is tried after a share of zero failed. */
    private static final double SMALLEST_RAISED = 1e-4;

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

    /**
     * Adds λ to the diagonal of {@code a} and makes dead channels independent of all others. Only the upper triangle
     * is written.
     */
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
     * Calls {@code attempt} with growing shares until it succeeds.
     *
     * @param channels size of the second moment, for messages
     * @param attempt takes a share and throws {@link SingularException} when the matrix is not positive definite with
     *     it
     * @return the result of the first attempt that succeeded
     * @throws UserException when all attempts failed
     */
    <T> T raise(int channels, DoubleFunction<T> attempt) {
        double current = share;
        for (int i = 0; i < MAX_ATTEMPTS; i++) {
            try {
                T result = attempt.apply(current);
                if (i > 0) {
                    log.warn(
                            "%s: the second moment of %d channels over %d tokens is singular; damping raised from %s to %s"
                                    .formatted(label, channels, tokens, share, current));
                }
                return result;
            } catch (SingularException e) {
                current = current == 0 ? SMALLEST_RAISED : current * 10;
            }
        }
        String remedy = tokens < channels
                ? "calibrate with at least " + channels + " tokens"
                : "the inputs are linearly dependent, so raise the damping";
        throw new UserException(
                "%s: the second moment of its %d channels over %d tokens cannot be inverted, even with damping %s; %s"
                        .formatted(label, channels, tokens, current / 10, remedy));
    }

    /**
     * Checks that all elements are finite; null passes.
     *
     * @param what name of the matrix, for the message
     * @throws UserException when an element is infinite or NaN
     */
    void checkFinite(Matrix matrix, String what) {
        if (matrix != null && !matrix.isFinite()) {
            throw new UserException("%s: the %s has numbers that are not finite".formatted(label, what));
        }
    }

    /**
     * Replaces {@code a} by the Cholesky factor of {@code a + λI} and returns it. When it is large, it lives on the
     * selected device, and {@code a} is closed.
     *
     * @throws SingularException when {@code a + λI} is not positive definite; {@code a} is closed then
     */
    static Matrix factored(Matrix a, double lambda) {
        apply(a, lambda);
        Matrix factor = Place.forWork(a.rows(), 2L * a.rows() * a.rows()).move(a);
        if (Cholesky.factor(factor)) {
            return factor;
        }
        factor.close();
        throw new SingularException();
    }
}
