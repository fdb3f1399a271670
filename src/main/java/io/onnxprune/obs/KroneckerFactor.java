// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Cholesky;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.algebra.Place;

/**
 * One Kronecker factor of a linear layer's Hessian or Fisher matrix, for the quadratic model ½ tr(Δwᵀ a Δw g): the
 * damped second moment of the layer's inputs (a) or of the gradients of its outputs (g), and its inverse. Dead
 * channels, which carried zero at every position, are independent of all others and cost nothing to remove.
 */
public final class KroneckerFactor implements AutoCloseable {
    private final Matrix damped;
    private final Matrix inverse;
    private final double[] diagonal;

    private KroneckerFactor(Matrix damped, Matrix inverse, double[] diagonal) {
        this.damped = damped;
        this.inverse = inverse;
        this.diagonal = diagonal;
    }

    /**
     * Damps and inverts a second moment.
     *
     * @param moment {@code [n, n]}, symmetric; overwritten, and closed together with the result
     * @param damping share of the mean diagonal to add, and the name for messages
     * @throws io.onnxprune.diag.UserException when a value is not finite or the second moment cannot be inverted
     */
    public static KroneckerFactor of(Matrix moment, Damping damping) {
        try {
            damping.checkFinite(moment, "second moment");
            double mean = Damping.meanDiagonal(moment);
            double[] diagonal = new double[moment.rows()];
            for (int i = 0; i < diagonal.length; i++) {
                diagonal[i] = Math.max(0, moment.get(i, i));
            }
            Matrix inverse = damping.raise(moment.rows(), share -> {
                for (int i = 0; i < diagonal.length; i++) {
                    moment.set(i, i, diagonal[i]);
                }
                Damping.apply(moment, share * mean);
                Matrix factor = Place.forWork(diagonal.length, 2L * diagonal.length * diagonal.length)
                        .move(moment.copy());
                if (!Cholesky.factor(factor)) {
                    factor.close();
                    throw new SingularException();
                }
                Cholesky.invert(factor);
                return factor;
            });
            Blas.mirror(moment);
            Blas.mirror(inverse);
            return new KroneckerFactor(moment, Place.HOST.move(inverse), diagonal);
        } catch (RuntimeException e) {
            moment.close();
            throw e;
        }
    }

    /** Number of channels. */
    public int size() {
        return diagonal.length;
    }

    /** The damped second moment. */
    Matrix damped() {
        return damped;
    }

    /** The inverse of {@link #damped}. */
    Matrix inverse() {
        return inverse;
    }

    /**
     * The factor that each channel contributes to the cost of pruning one element: one over the diagonal of the
     * inverse, or 0 for a dead channel. The cost of pruning only one element is half its square times the factors of
     * its input and its output.
     *
     * @return {@code [n]}
     */
    public double[] weights() {
        double[] weights = new double[diagonal.length];
        for (int i = 0; i < weights.length; i++) {
            weights[i] = diagonal[i] > 0 ? 1 / inverse.get(i, i) : 0;
        }
        return weights;
    }

    /**
     * ½ wᵀ m w of every column of {@code w}, with the second moment m before damping. Times {@link #weights} of the
     * other factor this is the cost of removing only that column's channel.
     *
     * @param w {@code [n, channels of the other factor]}
     * @return one element for each column, not negative
     */
    public double[] halfForms(Matrix w) {
        double[] sums = new double[w.columns()];
        double[] row = new double[w.columns()];
        double[] other = new double[w.columns()];
        try (Matrix product = Blas.largeProduct(damped, w)) {
            for (int i = 0; i < w.rows(); i++) {
                w.getRow(i, row);
                product.getRow(i, other);
                double added = damped.get(i, i) - diagonal[i];
                for (int j = 0; j < sums.length; j++) {
                    sums[j] += 0.5 * row[j] * (other[j] - added * row[j]);
                }
            }
        }
        for (int j = 0; j < sums.length; j++) {
            sums[j] = Math.max(0, sums[j]);
        }
        return sums;
    }

    @Override
    public void close() {
        damped.close();
        inverse.close();
    }
}
