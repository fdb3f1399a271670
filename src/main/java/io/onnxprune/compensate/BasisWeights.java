// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.ir.Tensor;
import io.onnxprune.rewrite.StreamWeights;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.function.UnaryOperator;

/** Changes constants along one axis in float64, one constant at a time outside the heap, and stores them in a folder. */
public final class BasisWeights implements StreamWeights {
    private final WeightStore store;
    private final Matrix basis;

    /**
     * Weights of a new basis.
     *
     * @param folder for the new weights
     * @param basis orthogonal, {@code [n, n]}, with its vectors as columns; it stays the caller's
     */
    public BasisWeights(Path folder, Matrix basis) {
        this.store = new WeightStore(folder);
        this.basis = basis;
    }

    /** Channels as the rows of a matrix, changed by {@code change}, which returns another matrix or the same one. */
    @SuppressWarnings("ReferenceEquality") // a changed matrix may be the same object
    private Tensor changed(Tensor tensor, int axis, UnaryOperator<Matrix> change) {
        Tensor flat = flat(tensor, axis);
        int rows = axis == 0 && tensor.rank() > 1 ? 0 : 1;
        try (Matrix before = WeightStore.read(flat, rows)) {
            Matrix after = change.apply(before);
            try {
                Tensor stored = store.write(after, flat, rows, "the residual stream");
                return Tensor.of(tensor.dtype(), tensor.shape(), stored.bytes());
            } finally {
                if (after != before) {
                    after.close();
                }
            }
        }
    }

    /** The same elements as a matrix with the channels along its first or last axis. */
    private static Tensor flat(Tensor tensor, int axis) {
        long channels = tensor.dim(axis);
        long others = tensor.elements() / channels;
        boolean first = axis == 0 && tensor.rank() > 1;
        long[] shape = first ? new long[] {channels, others} : new long[] {others, channels};
        return Tensor.of(tensor.dtype(), shape, tensor.bytes());
    }

    @Override
    public Tensor scaled(Tensor tensor, int axis, double[] factors) {
        return changed(tensor, axis, matrix -> {
            double[] row = new double[matrix.columns()];
            for (int i = 0; i < matrix.rows(); i++) {
                matrix.getRow(i, row);
                for (int j = 0; j < row.length; j++) {
                    row[j] *= factors[i];
                }
                matrix.setRow(i, row);
            }
            return matrix;
        });
    }

    @Override
    public Tensor centred(Tensor tensor, int axis) {
        return changed(tensor, axis, matrix -> {
            double[] factors = new double[matrix.rows()];
            Arrays.fill(factors, 1.0 / matrix.rows());
            double[] mean = sums(matrix, factors);
            double[] row = new double[matrix.columns()];
            for (int i = 0; i < matrix.rows(); i++) {
                matrix.getRow(i, row);
                for (int j = 0; j < row.length; j++) {
                    row[j] -= mean[j];
                }
                matrix.setRow(i, row);
            }
            return matrix;
        });
    }

    @Override
    public Tensor rotated(Tensor tensor, int axis) {
        return changed(tensor, axis, matrix -> {
            Matrix result = Matrix.zeros(matrix.rows(), matrix.columns());
            Blas.multiply(1, basis, true, matrix, false, 0, result);
            return result;
        });
    }

    @Override
    public double[] sums(Tensor tensor, int axis, double[] factors) {
        try (Matrix matrix = WeightStore.read(flat(tensor, axis), axis == 0 && tensor.rank() > 1 ? 0 : 1)) {
            return sums(matrix, factors);
        }
    }

    private static double[] sums(Matrix matrix, double[] factors) {
        double[] sums = new double[matrix.columns()];
        double[] row = new double[matrix.columns()];
        for (int i = 0; i < matrix.rows(); i++) {
            matrix.getRow(i, row);
            for (int j = 0; j < row.length; j++) {
                sums[j] += factors[i] * row[j];
            }
        }
        return sums;
    }
}
