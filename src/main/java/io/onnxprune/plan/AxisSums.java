// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Floats;
import io.onnxprune.ir.Tensor;
import java.io.DataInput;
import java.io.DataOutput;
import java.io.IOException;
import java.util.Arrays;
import java.util.BitSet;
import java.util.function.LongConsumer;

/**
 * Sums of one term for each element (|w|, w², |w·g|, ...) over the slices along some axes of a tensor. One pass over
 * the elements computes them all.
 */
final class AxisSums {
    /** The number of terms computed at a time. It is small enough that they stay in the cache until they are summed. */
    private static final int CHUNK = 1 << 12;

    /** Computes the term of each element. */
    interface Terms {
        /**
         * Computes the terms of {@code count} consecutive elements.
         *
         * @param first position of the first element in the tensor
         * @param weights holds the elements, from index {@code from} on
         * @param terms receives the terms, from index 0 on
         */
        void fill(long first, float[] weights, int from, int count, double[] terms);
    }

    static final Terms ABSOLUTES = (first, weights, from, count, terms) -> {
        for (int i = 0; i < count; i++) {
            terms[i] = Math.abs((double) weights[from + i]);
        }
    };

    static final Terms SQUARES = (first, weights, from, count, terms) -> {
        for (int i = 0; i < count; i++) {
            double weight = weights[from + i];
            terms[i] = weight * weight;
        }
    };

    private final Tensor tensor;
    private final int width;
    private final long[] strides;
    private final double[][] sums;
    private double total;

    /**
     * Reads {@code tensor} once.
     *
     * @param axes the axes whose slices are summed
     * @param label how an error message names the tensor
     * @param progress receives the number of elements after each block
     * @throws UserException if an element, or its term, is NaN or infinite
     */
    AxisSums(Tensor tensor, BitSet axes, Terms terms, String label, LongConsumer progress) {
        this.tensor = tensor;
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
        double[] chunk = new double[CHUNK];
        Floats.forEachBlock(tensor, (first, values, count) -> {
            for (int at = 0; at < count; at += CHUNK) {
                int length = Math.min(CHUNK, count - at);
                terms.fill(first + at, values, at, length, chunk);
                double added = accumulate(first + at, chunk, length);
                total += added;
                if (!Double.isFinite(added)) {
                    reject(label, first + at, Arrays.copyOfRange(values, at, at + length), chunk);
                }
            }
            progress.accept(count);
        });
    }

    private AxisSums(Tensor tensor, double[][] sums, double total) {
        this.tensor = tensor;
        this.width = 0;
        this.strides = null;
        this.sums = sums;
        this.total = total;
    }

    /**
     * Sums of {@code tensor} that were computed elsewhere.
     *
     * @param along the sums by axis, null for an axis that was not requested; at least one was
     * @param scale the sums are multiplied by it
     */
    static AxisSums of(Tensor tensor, double[][] along, double scale) {
        double[][] sums = new double[along.length][];
        double total = 0;
        for (int axis = along.length - 1; axis >= 0; axis--) {
            if (along[axis] != null) {
                sums[axis] = Arrays.stream(along[axis]).map(sum -> scale * sum).toArray();
                total = Arrays.stream(sums[axis]).sum();
            }
        }
        return new AxisSums(tensor, sums, total);
    }

    /** Whether no term was NaN or infinite. */
    boolean isFinite() {
        return Double.isFinite(total);
    }

    /** Writes the sums. */
    void write(DataOutput out) throws IOException {
        out.writeDouble(total);
        out.writeInt(sums.length);
        for (double[] along : sums) {
            out.writeInt(along == null ? -1 : along.length);
            for (int i = 0; along != null && i < along.length; i++) {
                out.writeDouble(along[i]);
            }
        }
    }

    /** Reads sums of {@code tensor} that {@link #write} wrote. */
    static AxisSums read(Tensor tensor, DataInput in) throws IOException {
        double total = in.readDouble();
        double[][] sums = new double[in.readInt()][];
        for (int axis = 0; axis < sums.length; axis++) {
            int length = in.readInt();
            sums[axis] = length < 0 ? null : new double[length];
            for (int i = 0; i < length; i++) {
                sums[axis][i] = in.readDouble();
            }
        }
        return new AxisSums(tensor, sums, total);
    }

    /** The sums over the slice at each index along {@code axis}, which must be one of the requested axes. */
    double[] along(int axis) {
        return sums[axis];
    }

    /** The sum over all elements. */
    double total() {
        return total;
    }

    /**
     * Adds terms and returns their sum. Terms are split at the ends of rows, because within a row only the last index
     * changes.
     */
    private double accumulate(long first, double[] chunk, int count) {
        double all = 0;
        int at = 0;
        while (at < count) {
            long row = (first + at) / width;
            int column = (int) ((first + at) % width);
            int length = Math.min(width - column, count - at);
            double[] columns = sums.length == 0 ? null : sums[sums.length - 1];
            if (columns != null) {
                for (int i = 0; i < length; i++) {
                    columns[column + i] += chunk[at + i];
                }
            }
            double sum = sum(chunk, at, length);
            all += sum;
            for (int axis = 0; axis < sums.length - 1; axis++) {
                if (sums[axis] != null) {
                    long index = row * width / strides[axis] % tensor.dim(axis);
                    sums[axis][(int) index] += sum;
                }
            }
            at += length;
        }
        return all;
    }

    /** Sums four partial sums in parallel. A single sum would wait for the previous addition at every element. */
    private static double sum(double[] terms, int from, int length) {
        double a = 0;
        double b = 0;
        double c = 0;
        double d = 0;
        int i = from;
        for (int end = from + length - 3; i < end; i += 4) {
            a += terms[i];
            b += terms[i + 1];
            c += terms[i + 2];
            d += terms[i + 3];
        }
        for (int end = from + length; i < end; i++) {
            a += terms[i];
        }
        return a + b + (c + d);
    }

    private static void reject(String label, long first, float[] values, double[] terms) {
        for (int i = 0; i < values.length; i++) {
            if (!Float.isFinite(values[i])) {
                throw new UserException(
                        label + " holds " + values[i] + " at element " + (first + i) + "; repair the weights first");
            }
        }
        for (int i = 0; i < values.length; i++) {
            if (!Double.isFinite(terms[i])) {
                throw new UserException(label + " has a gradient that is not finite at element " + (first + i)
                        + ", so its importance is unknown; calibrate on other data, or choose a method without gradients, such as"
                        + " --method magnitude");
            }
        }
    }
}
