// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Cholesky;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.algebra.Place;
import io.onnxprune.diag.UserException;
import java.util.BitSet;
import java.util.stream.IntStream;

/**
 * Updates the kept elements of a linear layer's weights when single elements are pruned to zero, so that ½ tr(Δwᵀ a Δw
 * g) is least. This is the LLM Surgeon's update for unstructured sparsity (arXiv 2312.17244). Weights are
 * {@code [out, n]} here, because elements are taken output by output.
 */
public final class ElementUpdate {
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
     * Solves for all kept elements jointly by conjugate gradients. The preconditioner is the inverse of the full
     * quadratic form, restricted to the kept elements, so each iteration takes a few matrix products.
     *
     * @param inputs second moment of the inputs, size n
     * @param outputs second moment of the gradients of the outputs, size out
     * @param w weights {@code [out, n]}; replaced by the updated ones
     * @param zeros for each output the inputs whose elements are pruned
     */
    public static void together(KroneckerFactor inputs, KroneckerFactor outputs, Matrix w, BitSet[] zeros) {
        JointUpdate.run(inputs, outputs, w, zeros);
    }

    /**
     * Solves for groups of pruned elements one after another. A group holds whole outputs with at most {@code limit}
     * pruned elements together, or one output with more. Each group is solved exactly, starting from the weights that
     * the groups before it left. At the end, elements that earlier groups pruned are set back to zero, so the result
     * is not the joint minimum.
     *
     * @param inputs second moment of the inputs, size n
     * @param outputs second moment of the gradients of the outputs, size out
     * @param w weights {@code [out, n]}; replaced by the updated ones
     * @param zeros for each output the inputs whose elements are pruned
     * @param limit largest number of pruned elements in a group of several outputs
     * @throws UserException when the system of a group is not positive definite
     */
    public static void inGroups(KroneckerFactor inputs, KroneckerFactor outputs, Matrix w, BitSet[] zeros, int limit) {
        new ElementUpdate(inputs, outputs, w, zeros).updateInGroups(limit);
    }

    /**
     * Sets the pruned elements to zero and leaves all others unchanged.
     *
     * @param w weights {@code [out, n]}
     * @param zeros for each output the inputs whose elements are pruned
     */
    public static void clear(Matrix w, BitSet[] zeros) {
        double[] row = new double[w.columns()];
        for (int j = 0; j < zeros.length; j++) {
            w.getRow(j, row);
            zeros[j].stream().forEach(i -> row[i] = 0);
            w.setRow(j, row);
        }
    }

    private void updateInGroups(int limit) {
        for (int begin = 0; begin < zeros.length; ) {
            int end = begin;
            long count = 0;
            while (end < zeros.length && (end == begin || count + zeros[end].cardinality() <= limit)) {
                count += zeros[end++].cardinality();
            }
            if (end == begin + 1) {
                updateOutput(begin);
            } else if (count > 0) {
                updateOutputs(begin, end, (int) count);
            }
            begin = end;
        }
        clear(w, zeros);
    }

    /** Solves for the pruned elements Q of several outputs: {@code (g⁻¹⊗a⁻¹)_QQ u = w_Q, Δw = -g⁻¹ u a⁻¹}. */
    private void updateOutputs(int begin, int end, int count) {
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
            try (Matrix factor = factor(system)) {
                Cholesky.solve(factor, right);
            }
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

    /**
     * Solves for the pruned elements of one output, where {@code g⁻¹} is one number. Uses the smaller of two systems:
     * that of the pruned elements or that of the kept ones.
     */
    private void updateOutput(int j) {
        int[] pruned = zeros[j].stream().toArray();
        if (pruned.length == 0) {
            return;
        }
        try (Matrix direction = Matrix.zeros(n, 1);
                Matrix right = Matrix.zeros(pruned.length, 1)) {
            for (int k = 0; k < pruned.length; k++) {
                right.set(k, 0, w.get(j, pruned[k]));
            }
            if (2 * pruned.length <= n) {
                solvePruned(pruned, right, direction);
            } else {
                solveKept(j, pruned, right, direction);
            }
            Matrix spread = outputs.inverse().block(0, j, zeros.length, 1);
            Blas.multiply(-1 / outputs.inverse().get(j, j), spread, false, direction, true, 1, w);
        }
    }

    private void solvePruned(int[] pruned, Matrix right, Matrix direction) {
        try (Matrix factor = factor(inputs.inverse().select(pruned, pruned))) {
            Cholesky.solve(factor, right);
        }
        try (Matrix scattered = Matrix.zeros(n, 1)) {
            for (int k = 0; k < pruned.length; k++) {
                scattered.set(pruned[k], 0, right.get(k, 0));
            }
            Blas.multiply(1, inputs.inverse(), false, scattered, false, 0, direction);
        }
    }

    private void solveKept(int j, int[] pruned, Matrix right, Matrix direction) {
        int[] kept = IntStream.range(0, n).filter(i -> !zeros[j].get(i)).toArray();
        try (Matrix across = inputs.damped().select(kept, pruned);
                Matrix solution = Blas.product(across, right);
                Matrix factor = factor(inputs.damped().select(kept, kept))) {
            Cholesky.solve(factor, solution);
            for (int k = 0; k < kept.length; k++) {
                direction.set(kept[k], 0, -solution.get(k, 0));
            }
        }
        for (int k = 0; k < pruned.length; k++) {
            direction.set(pruned[k], 0, right.get(k, 0));
        }
    }

    /** The Cholesky factor of a system, which is overwritten, or closed when a large one moves to the selected device. */
    private static Matrix factor(Matrix system) {
        Matrix factor = Place.forWork(system.rows(), (long) system.rows() * system.rows())
                .move(system);
        if (!Cholesky.factor(factor)) {
            factor.close();
            throw new UserException("the linear system for the pruned elements of a layer is not positive definite;"
                    + " raise the damping");
        }
        return factor;
    }
}
