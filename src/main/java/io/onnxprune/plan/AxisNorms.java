package io.onnxprune.plan;

import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Floats;
import io.onnxprune.ir.Tensor;
import java.util.BitSet;
import java.util.function.LongConsumer;

/** Sums of |w| or w² over every slice across some axes of one tensor, from a single pass over its elements. */
final class AxisNorms {
    private final Tensor tensor;
    private final boolean squared;
    private final String label;
    private final int width;
    private final long[] strides;
    private final double[][] sums;
    private double total;

    /**
     * Reads {@code tensor} once.
     *
     * @param axes the axes whose slices are summed
     * @param label how an error message names the tensor
     * @param progress told of elements read
     * @throws UserException if an element is NaN or infinite
     */
    AxisNorms(Tensor tensor, BitSet axes, boolean squared, String label, LongConsumer progress) {
        this.tensor = tensor;
        this.squared = squared;
        this.label = label;
        int rank = tensor.rank();
        this.width = rank == 0 ? 1 : Math.toIntExact(tensor.dim(rank - 1));
        this.strides = new long[rank];
        long stride = 1;
        for (int axis = rank - 1; axis >= 0; axis--) {
            strides[axis] = stride;
            stride *= tensor.dim(axis);
        }
        this.sums = new double[rank][];
        axes.stream().forEach(axis -> sums[axis] = new double[Math.toIntExact(tensor.dim(axis))]);
        Floats.forEachBlock(tensor, (first, values, count) -> {
            accumulate(first, values, count);
            progress.accept(count);
        });
    }

    /** Sums over the slice at each index along {@code axis}, which must be one of those asked for. */
    double[] along(int axis) {
        return sums[axis];
    }

    /** The sum over all elements. */
    double total() {
        return total;
    }

    /** Adds a block, cut at the ends of rows: within a row only the last axis' index moves. */
    private void accumulate(long first, float[] values, int count) {
        double before = total;
        int at = 0;
        while (at < count) {
            long row = (first + at) / width;
            int column = (int) ((first + at) % width);
            int length = Math.min(width - column, count - at);
            double[] columns = sums.length == 0 ? null : sums[sums.length - 1];
            double sum = columns == null ? rowSum(values, at, length) : rowSum(values, at, length, columns, column);
            total += sum;
            for (int axis = 0; axis < sums.length - 1; axis++) {
                if (sums[axis] != null) {
                    long index = row * width / strides[axis] % tensor.dim(axis);
                    sums[axis][(int) index] += sum;
                }
            }
            at += length;
        }
        if (!Double.isFinite(total - before)) {
            refuse(first, values, count);
        }
    }

    private double power(float value) {
        double wide = value;
        return squared ? wide * wide : Math.abs(wide);
    }

    /** Four sums at a time: one would wait for its last addition at every element. */
    private double rowSum(float[] values, int from, int length) {
        double a = 0;
        double b = 0;
        double c = 0;
        double d = 0;
        int i = from;
        for (int end = from + length - 3; i < end; i += 4) {
            a += power(values[i]);
            b += power(values[i + 1]);
            c += power(values[i + 2]);
            d += power(values[i + 3]);
        }
        for (int end = from + length; i < end; i++) {
            a += power(values[i]);
        }
        return a + b + (c + d);
    }

    private double rowSum(float[] values, int from, int length, double[] columns, int column) {
        for (int i = 0; i < length; i++) {
            columns[column + i] += power(values[from + i]);
        }
        return rowSum(values, from, length);
    }

    private void refuse(long first, float[] values, int count) {
        for (int i = 0; i < count; i++) {
            if (!Float.isFinite(values[i])) {
                throw new UserException(
                        label + " holds " + values[i] + " at element " + (first + i) + "; repair the weights first");
            }
        }
    }
}
