// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Cholesky;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.diag.UserException;
import java.util.Arrays;
import java.util.BitSet;
import java.util.stream.IntStream;

/**
 * What the other elements of a layer's weights become when some are zero: the least ½ tr(Δwᵀ a Δw g), for elements all
 * together or in groups one after the other (LLM Surgeon, arXiv 2312.17244). Weights are {@code [out, n]} here, since elements
 * are taken output by output.
 */
public final class ElementUpdate {
    /** Conjugate directions that are taken at most; each costs four products of matrices, and ten to twenty are usual. */
    private static final int DIRECTIONS = 100;

    /**
     * How far the squared gradient, in the metric of the preconditioner, is to fall: half of it bounds how far the loss is above
     * its minimum, since the inverse of a part of a form is never more than that part of its inverse.
     */
    private static final double PRECISION = 1e-5;

    private final KroneckerFactor inputs;
    private final KroneckerFactor outputs;
    private final Matrix w;
    private final BitSet[] zeros;
    private final int n;

    private ElementUpdate(KroneckerFactor inputs, KroneckerFactor outputs, Matrix w, BitSet[] zeros) {
        this.inputs = inputs;
        this.outputs = outputs;
        this.w = w;
        this.zeros = zeros;
        n = w.columns();
    }

    /**
     * All elements together, by conjugate gradients on the elements that stay. The inverse of the whole quadratic form, at the
     * elements that stay, serves as preconditioner, so the work is a few products of matrices for each direction.
     *
     * @param w weights {@code [out, n]}, replaced by the new ones
     * @param zeros for each output the inputs that become zero
     */
    public static void together(KroneckerFactor inputs, KroneckerFactor outputs, Matrix w, BitSet[] zeros) {
        new ElementUpdate(inputs, outputs, w, zeros).descend();
    }

    /**
     * In groups of whole outputs with at most {@code limit} zeros, or of one output with more, each solved exactly by itself, on
     * the weights that those before left. What a group does to zeros of groups before is undone at the end, so the result
     * is not the least of all.
     *
     * @param limit elements that are solved for together
     */
    public static void inGroups(KroneckerFactor inputs, KroneckerFactor outputs, Matrix w, BitSet[] zeros, int limit) {
        new ElementUpdate(inputs, outputs, w, zeros).groups(limit);
    }

    /** Only zeros; all other elements stay as they are. */
    public static void clear(Matrix w, BitSet[] zeros) {
        double[] row = new double[w.columns()];
        for (int j = 0; j < zeros.length; j++) {
            w.getRow(j, row);
            zeros[j].stream().forEach(i -> row[i] = 0);
            w.setRow(j, row);
        }
    }

    private void groups(int limit) {
        for (int begin = 0; begin < zeros.length; ) {
            int end = begin;
            long count = 0;
            while (end < zeros.length && (end == begin || count + zeros[end].cardinality() <= limit)) {
                count += zeros[end++].cardinality();
            }
            if (end == begin + 1) {
                single(begin);
            } else if (count > 0) {
                group(begin, end, (int) count);
            }
            begin = end;
        }
        clear(w, zeros);
    }

    /** The zeros of several outputs: {@code (g⁻¹⊗a⁻¹)_QQ u = w_Q, Δw = -g⁻¹ u a⁻¹}. */
    private void group(int begin, int end, int count) {
        int[] output = new int[count];
        int[] input = new int[count];
        int found = 0;
        for (int j = begin; j < end; j++) {
            for (int i = zeros[j].nextSetBit(0); i >= 0; i = zeros[j].nextSetBit(i + 1)) {
                output[found] = j;
                input[found++] = i;
            }
        }
        try (Matrix system = Matrix.zeros(count, count);
                Matrix right = Matrix.zeros(count, 1);
                Matrix scattered = Matrix.zeros(end - begin, n)) {
            fill(system, output, input);
            for (int k = 0; k < count; k++) {
                right.set(k, 0, w.get(output[k], input[k]));
            }
            factor(system);
            Cholesky.solve(system, right);
            for (int k = 0; k < count; k++) {
                scattered.set(output[k] - begin, input[k], right.get(k, 0));
            }
            try (Matrix change = Blas.product(scattered, inputs.inverse())) {
                Matrix spread = outputs.inverse().block(0, begin, zeros.length, end - begin);
                Blas.multiply(-1, spread, false, change, false, 1, w);
            }
        }
    }

    private void fill(Matrix system, int[] output, int[] input) {
        double[] byInput = new double[n];
        double[] byOutput = new double[zeros.length];
        double[] row = new double[output.length];
        for (int k = 0; k < output.length; k++) {
            inputs.inverse().getRow(input[k], byInput);
            outputs.inverse().getRow(output[k], byOutput);
            for (int l = k; l < row.length; l++) {
                row[l] = byOutput[output[l]] * byInput[input[l]];
            }
            system.setRow(k, row);
        }
    }

    /** The zeros of one output, where {@code g⁻¹} is one number: by the smaller of the systems of what goes and of what stays. */
    private void single(int j) {
        int[] gone = zeros[j].stream().toArray();
        if (gone.length == 0) {
            return;
        }
        try (Matrix direction = Matrix.zeros(n, 1);
                Matrix right = Matrix.zeros(gone.length, 1)) {
            for (int k = 0; k < gone.length; k++) {
                right.set(k, 0, w.get(j, gone[k]));
            }
            if (2 * gone.length <= n) {
                byGone(gone, right, direction);
            } else {
                byKept(j, gone, right, direction);
            }
            Matrix spread = outputs.inverse().block(0, j, zeros.length, 1);
            Blas.multiply(-1 / outputs.inverse().get(j, j), spread, false, direction, true, 1, w);
        }
    }

    private void byGone(int[] gone, Matrix right, Matrix direction) {
        try (Matrix system = inputs.inverse().select(gone, gone)) {
            factor(system);
            Cholesky.solve(system, right);
        }
        try (Matrix scattered = Matrix.zeros(n, 1)) {
            for (int k = 0; k < gone.length; k++) {
                scattered.set(gone[k], 0, right.get(k, 0));
            }
            Blas.multiply(1, inputs.inverse(), false, scattered, false, 0, direction);
        }
    }

    private void byKept(int j, int[] gone, Matrix right, Matrix direction) {
        int[] kept = IntStream.range(0, n).filter(i -> !zeros[j].get(i)).toArray();
        try (Matrix across = inputs.damped().select(kept, gone);
                Matrix answer = Blas.product(across, right);
                Matrix system = inputs.damped().select(kept, kept)) {
            factor(system);
            Cholesky.solve(system, answer);
            for (int k = 0; k < kept.length; k++) {
                direction.set(kept[k], 0, -answer.get(k, 0));
            }
        }
        for (int k = 0; k < gone.length; k++) {
            direction.set(gone[k], 0, right.get(k, 0));
        }
    }

    private static void factor(Matrix system) {
        if (!Cholesky.factor(system)) {
            throw new UserException(
                    "the elements of a layer that become zero depend on each other too much to be solved"
                            + " for; raise the damping");
        }
    }

    /** Conjugate gradients from the weights that only have their zeros; these stay zero in each direction. */
    private void descend() {
        int out = zeros.length;
        try (Matrix residual = Matrix.zeros(out, n);
                Matrix direction = Matrix.zeros(out, n);
                Matrix image = Matrix.zeros(out, n);
                Matrix between = Matrix.zeros(out, n)) {
            start(direction);
            apply(outputs.damped(), direction, inputs.damped(), between, residual);
            apply(outputs.inverse(), residual, inputs.inverse(), between, direction);
            double size = dot(residual, direction);
            double enough = PRECISION * size;
            for (int step = 0; step < DIRECTIONS && size > enough; step++) {
                apply(outputs.damped(), direction, inputs.damped(), between, image);
                double length = size / dot(direction, image);
                combine(length, direction, 1, w);
                combine(-length, image, 1, residual);
                apply(outputs.inverse(), residual, inputs.inverse(), between, image);
                double next = dot(residual, image);
                combine(1, image, next / size, direction);
                size = next;
            }
        }
    }

    /** Clears the zeros, and sets {@code lost} to the elements that they had. */
    private void start(Matrix lost) {
        double[] row = new double[n];
        double[] cleared = new double[n];
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

    /** {@code result = left x right} at the elements that stay. */
    private void apply(Matrix left, Matrix x, Matrix right, Matrix between, Matrix result) {
        Blas.multiply(1, left, false, x, false, 0, between);
        Blas.multiply(1, between, false, right, false, 0, result);
        clear(result, zeros);
    }

    private static double dot(Matrix left, Matrix right) {
        double[] one = new double[left.columns()];
        double[] other = new double[left.columns()];
        double sum = 0;
        for (int j = 0; j < left.rows(); j++) {
            left.getRow(j, one);
            right.getRow(j, other);
            for (int i = 0; i < one.length; i++) {
                sum += one[i] * other[i];
            }
        }
        return sum;
    }

    /** {@code sum = factor term + share sum}. */
    private static void combine(double factor, Matrix term, double share, Matrix sum) {
        double[] one = new double[sum.columns()];
        double[] other = new double[sum.columns()];
        for (int j = 0; j < sum.rows(); j++) {
            term.getRow(j, one);
            sum.getRow(j, other);
            for (int i = 0; i < other.length; i++) {
                other[i] = factor * one[i] + share * other[i];
            }
            sum.setRow(j, other);
        }
    }
}
