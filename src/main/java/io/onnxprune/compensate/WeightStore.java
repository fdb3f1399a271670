// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Bytes;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Floats;
import io.onnxprune.ir.Tensor;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.channels.FileChannel.MapMode;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Arrays;
import java.util.stream.IntStream;

/**
 * Converts matrices to tensors and back. Large tensors lie in mapped files of a work folder, so they take no heap. The
 * files are deleted on opening, so they disappear with the process. Small tensors are in memory.
 */
public final class WeightStore {
    private static final long SMALL = 1 << 16;
    private static final float LARGEST_HALF = 65504;

    private final Path folder;

    /** Creates a store whose files lie in {@code folder}. */
    public WeightStore(Path folder) {
        this.folder = folder;
    }

    /**
     * Reads a tensor of rank 2 as a matrix.
     *
     * @param axis the axis of the tensor that becomes the rows of the matrix, 0 or 1
     */
    public static Matrix read(Tensor tensor, int axis) {
        int rows = Math.toIntExact(tensor.dim(axis));
        int columns = Math.toIntExact(tensor.dim(1 - axis));
        long width = tensor.dim(1);
        Matrix matrix = Matrix.zeros(rows, columns);
        Floats.forEachBlock(tensor, (first, values, count) -> {
            for (int i = 0; i < count; i++) {
                int line = (int) ((first + i) / width);
                int place = (int) ((first + i) % width);
                matrix.set(axis == 0 ? line : place, axis == 0 ? place : line, values[i]);
            }
        });
        return matrix;
    }

    /** Adds one matrix to another. */
    static void add(Matrix term, Matrix sum) {
        add(1, term, sum);
    }

    /** Adds a multiple of one matrix to another. */
    static void add(double factor, Matrix term, Matrix sum) {
        double[] row = new double[term.columns()];
        for (int i = 0; i < term.rows(); i++) {
            term.getRow(i, row);
            for (int j = 0; j < row.length; j++) {
                sum.add(i, j, factor * row[j]);
            }
        }
    }

    /** The sum of the elementwise product of two matrices. */
    static double dot(Matrix left, Matrix right) {
        double[] one = new double[left.columns()];
        double[] other = new double[left.columns()];
        double sum = 0;
        for (int i = 0; i < left.rows(); i++) {
            left.getRow(i, one);
            right.getRow(i, other);
            for (int j = 0; j < one.length; j++) {
                sum += one[j] * other[j];
            }
        }
        return sum;
    }

    /**
     * The place of a matrix in a tensor of rank 2, which is zero elsewhere.
     *
     * @param dtype the element type of the tensor
     * @param shape the shape of the tensor
     * @param axis the axis of the tensor that holds the rows of the matrix, 0 or 1
     * @param rows for each row of the matrix, the index along this axis, ascending
     * @param columns for each column of the matrix, the index along the other axis, ascending
     */
    @SuppressWarnings("ArrayRecordComponent") // never compared
    public record Place(DType dtype, long[] shape, int axis, int[] rows, int[] columns) {
        /** The place of a matrix that fills the tensor. */
        static Place whole(Matrix matrix, DType dtype, long[] shape, int axis) {
            return new Place(
                    dtype,
                    shape,
                    axis,
                    IntStream.range(0, matrix.rows()).toArray(),
                    IntStream.range(0, matrix.columns()).toArray());
        }
    }

    /**
     * Stores a matrix as a float32 tensor of the same shape.
     *
     * @param label names the matrix in messages
     * @throws UserException if a number is outside the range of float32, or the disk is full
     */
    Tensor write(Matrix matrix, String label) {
        long[] shape = {matrix.rows(), matrix.columns()};
        return write(matrix, Place.whole(matrix, DType.FLOAT, shape, 0), label);
    }

    /**
     * Stores a matrix as a tensor with the shape and element type of another.
     *
     * @param like has the shape and the element type
     * @param axis the axis of the tensor that holds the rows of the matrix, 0 or 1
     * @param label names the weights in messages
     * @throws UserException if a number is outside the range of the element type, or the disk is full
     */
    public Tensor write(Matrix matrix, Tensor like, int axis, String label) {
        return write(matrix, Place.whole(matrix, like.dtype(), like.shape(), axis), label);
    }

    /**
     * Stores a matrix as a part of a tensor that is zero elsewhere.
     *
     * @param label names the weights in messages
     * @throws UserException if a number is outside the range of the element type, or the disk is full
     */
    public Tensor write(Matrix matrix, Place place, String label) {
        try (Matrix transposed = place.axis == 0 ? null : matrix.transposed()) {
            return store(place.dtype, place.shape, new RowEncoder(place.axis == 0 ? matrix : transposed, place, label));
        }
    }

    /** Encodes the rows of a tensor, one after the other. */
    private static final class RowEncoder {
        private final Matrix source;
        private final int[] rowAt;
        private final int[] columnAt;
        private final DType dtype;
        private final String label;
        private final double[] row;
        private final float[] line;
        private int next;

        RowEncoder(Matrix source, Place place, String label) {
            this.source = source;
            this.rowAt = place.axis == 0 ? place.rows : place.columns;
            this.columnAt = place.axis == 0 ? place.columns : place.rows;
            this.dtype = place.dtype;
            this.label = label;
            this.row = new double[source.columns()];
            this.line = new float[Math.toIntExact(place.shape[1])];
        }

        void encode(int index, ByteBuffer target) {
            Arrays.fill(line, 0);
            if (next < rowAt.length && rowAt[next] == index) {
                source.getRow(next++, row);
                for (int i = 0; i < row.length; i++) {
                    line[columnAt[i]] = (float) row[i];
                    check(line[columnAt[i]]);
                }
            }
            Floats.encode(dtype, line, line.length, target);
        }

        private void check(float value) {
            if (!(Math.abs(value) <= (dtype == DType.FLOAT16 ? LARGEST_HALF : Float.MAX_VALUE))) {
                throw new UserException("a new weight of " + label + " is " + value + ", which " + dtype
                        + " cannot hold; calibrate on more tokens or raise damping");
            }
        }
    }

    private Tensor store(DType dtype, long[] shape, RowEncoder encoder) {
        int lineBytes = Math.toIntExact(dtype.bytes(shape[1]));
        long size = lineBytes * shape[0];
        if (size <= SMALL) {
            ByteBuffer bytes = ByteBuffer.allocate((int) size).order(ByteOrder.LITTLE_ENDIAN);
            for (int index = 0; index < shape[0]; index++) {
                encoder.encode(index, bytes);
            }
            return Tensor.of(dtype, shape, Bytes.of(bytes.flip()));
        }
        try {
            Files.createDirectories(folder);
            Path path = Files.createTempFile(folder, "weights", ".bin");
            try (FileChannel file = FileChannel.open(
                    path, StandardOpenOption.READ, StandardOpenOption.WRITE, StandardOpenOption.DELETE_ON_CLOSE)) {
                ByteBuffer line = ByteBuffer.allocateDirect(lineBytes).order(ByteOrder.LITTLE_ENDIAN);
                for (int index = 0; index < shape[0]; index++) {
                    encoder.encode(index, line.clear());
                    for (line.flip(); line.hasRemaining(); ) {
                        file.write(line);
                    }
                }
                return Tensor.of(dtype, shape, Bytes.of(file.map(MapMode.READ_ONLY, 0, size)));
            }
        } catch (IOException e) {
            throw new UserException(
                    "new weights cannot be written to %s: %s; free space there or name another --work-dir"
                            .formatted(folder, FileFailure.reason(e)),
                    e);
        }
    }
}
