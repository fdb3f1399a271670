// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.algebra.Place;
import io.onnxprune.algebra.Pointwise;
import java.util.Arrays;
import java.util.BitSet;

/**
 * Solves for all kept elements of a linear layer's weights at once, by preconditioned conjugate gradients. Starts from
 * the weights with the pruned elements set to zero; these stay zero in every direction. Large matrices are worked on on
 * the selected device.
 */
final class JointUpdate {
    /** Maximal number of conjugate-gradient iterations. Each costs four matrix products; ten to twenty are usual. */
    private static final int MAX_ITERATIONS = 100;

    /**
     * Relative decrease of the preconditioned squared gradient at which the iteration stops. Half of that squared
     * gradient bounds the distance of the loss from its minimum, because the inverse of a principal block of a
     * positive definite form is never larger than that block of its inverse.
     */
    private static final double PRECISION = 1e-5;

    private final KroneckerFactor inputs;
    private final KroneckerFactor outputs;
    private final Matrix w;
    private final BitSet[] zeros;
    private final Place place;

    private JointUpdate(KroneckerFactor inputs, KroneckerFactor outputs, Matrix w, BitSet[] zeros) {
        this.inputs = inputs;
        this.outputs = outputs;
        this.w = w;
        this.zeros = zeros;
        long factors = 2L * w.columns() * w.columns() + 2L * w.rows() * w.rows();
        place = Place.forWork(Math.max(w.rows(), w.columns()), factors + 6L * w.rows() * w.columns());
    }

    /** Replaces {@code w} by the updated weights. */
    static void run(KroneckerFactor inputs, KroneckerFactor outputs, Matrix w, BitSet[] zeros) {
        new JointUpdate(inputs, outputs, w, zeros).minimise();
    }

    private void minimise() {
        int out = w.rows();
        int n = w.columns();
        Matrix lost = Matrix.zeros(out, n);
        start(lost);
        try (Matrix direction = place.move(lost);
                Matrix current = place.borrow(w);
                Matrix kept = place.isHost() ? Matrix.zeros(0, 0) : place.move(keptElements());
                Matrix a = place.borrow(inputs.damped());
                Matrix g = place.borrow(outputs.damped());
                Matrix inverseOfA = place.borrow(inputs.inverse());
                Matrix inverseOfG = place.borrow(outputs.inverse());
                Matrix residual = place.zeros(out, n);
                Matrix image = place.zeros(out, n);
                Matrix between = place.zeros(out, n)) {
            Form form = (left, x, right, result) -> {
                Blas.multiply(1, left, false, x, false, 0, between);
                Blas.multiply(1, between, false, right, false, 0, result);
                clear(result, kept);
            };
            form.apply(g, direction, a, residual);
            form.apply(inverseOfG, residual, inverseOfA, direction);
            double size = Pointwise.dot(residual, direction);
            double target = PRECISION * size;
            for (int step = 0; step < MAX_ITERATIONS && size > target; step++) {
                form.apply(g, direction, a, image);
                double length = size / Pointwise.dot(direction, image);
                Pointwise.combine(length, direction, 1, current);
                Pointwise.combine(-length, image, 1, residual);
                form.apply(inverseOfG, residual, inverseOfA, image);
                double next = Pointwise.dot(residual, image);
                Pointwise.combine(1, image, next / size, direction);
                size = next;
            }
            if (!place.isHost()) {
                w.assign(current);
            }
        }
    }

    /** {@code result = left x right} at the kept elements, zero elsewhere. */
    private interface Form {
        void apply(Matrix left, Matrix x, Matrix right, Matrix result);
    }

    private void clear(Matrix result, Matrix kept) {
        if (place.isHost()) {
            ElementUpdate.clear(result, zeros);
        } else {
            Pointwise.scale(result, kept);
        }
    }

    /** One for each kept element and zero for each pruned one. */
    private Matrix keptElements() {
        Matrix ones = Matrix.zeros(w.rows(), w.columns());
        double[] row = new double[w.columns()];
        Arrays.fill(row, 1);
        for (int j = 0; j < zeros.length; j++) {
            ones.setRow(j, row);
        }
        ElementUpdate.clear(ones, zeros);
        return ones;
    }

    /** Sets the pruned elements to zero and copies their former values to {@code lost}. */
    private void start(Matrix lost) {
        double[] row = new double[w.columns()];
        double[] cleared = new double[w.columns()];
        for (int j = 0; j < zeros.length; j++) {
            w.getRow(j, row);
            Arrays.fill(cleared, 0);
            for (int i = zeros[j].nextSetBit(0); i >= 0; i = zeros[j].nextSetBit(i + 1)) {
                cleared[i] = row[i];
                row[i] = 0;
            }
            w.setRow(j, row);
            lost.setRow(j, cleared);
        }
    }
}
