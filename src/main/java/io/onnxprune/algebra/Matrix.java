// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.algebra;

import java.nio.FloatBuffer;
import java.util.Objects;
import java.util.stream.IntStream;
import org.bytedeco.javacpp.DoublePointer;

/**
 * A dense row-major matrix of float64 outside the heap, with any number of elements, or a view of a block of one. A
 * view shares the elements of its matrix. Closing the matrix frees them; closing a view does nothing.
 *
 * <p>Elements are read and written singly or by row; {@link Blas} does all heavier work. Instances must not be used by
 * several threads while one of them writes.
 *
 * <p>A matrix lives on the host or on a GPU, see {@link Place}. On a GPU, each access to an element or a row is a copy
 * that takes at least ten microseconds, so large matrices are moved to the host before they are read. Such a matrix must
 * be closed; the garbage collector does not free it.
 */
public final class Matrix implements AutoCloseable {
    /** Largest number of rows that are copied from a device at once. */
    private static final int RUN = 256;

    private final Memory memory;
    private final boolean view;
    private final long offset;
    private final int rows;
    private final int columns;
    private final int stride;

    private Matrix(Memory memory, boolean view, long offset, int rows, int columns, int stride) {
        this.memory = memory;
        this.view = view;
        this.offset = offset;
        this.rows = rows;
        this.columns = columns;
        this.stride = stride;
    }

    /** A matrix of the host whose elements are not initialised. */
    static Matrix uninitialized(int rows, int columns) {
        return uninitialized(Place.HOST, rows, columns);
    }

    /** A matrix whose elements are not initialised. */
    static Matrix uninitialized(Place place, int rows, int columns) {
        if (rows < 0 || columns < 0) {
            throw new IllegalArgumentException("a matrix cannot be " + rows + " x " + columns);
        }
        return new Matrix(place.allocate((long) rows * columns), false, 0, rows, columns, columns);
    }

    /** A matrix of zeros of the host. */
    public static Matrix zeros(int rows, int columns) {
        return zeros(Place.HOST, rows, columns);
    }

    static Matrix zeros(Place place, int rows, int columns) {
        Matrix result = uninitialized(place, rows, columns);
        result.memory.clear((long) rows * columns);
        return result;
    }

    static Matrix padded(Place place, int n) {
        int stride = n % 64 == 0 ? n + 8 : n;
        Matrix all = zeros(place, n, stride);
        return new Matrix(all.memory, false, 0, n, n, stride);
    }

    /** A copy of an array of rows of equal length. */
    public static Matrix of(double[][] values) {
        Matrix result = uninitialized(values.length, values.length == 0 ? 0 : values[0].length);
        for (int row = 0; row < values.length; row++) {
            result.setRow(row, values[row]);
        }
        return result;
    }

    /**
     * A copy of {@code rows x columns} float32 values, row by row, from the buffer's position on. The position does
     * not change.
     */
    public static Matrix of(FloatBuffer values, int rows, int columns) {
        Matrix result = uninitialized(rows, columns);
        FloatBuffer source = values.duplicate();
        float[] single = new float[columns];
        double[] row = new double[columns];
        for (int i = 0; i < rows; i++) {
            source.get(single);
            for (int j = 0; j < columns; j++) {
                row[j] = single[j];
            }
            result.setRow(i, row);
        }
        return result;
    }

    /** Number of rows. */
    public int rows() {
        return rows;
    }

    /** Number of columns. */
    public int columns() {
        return columns;
    }

    /** Returns one element. */
    public double get(int row, int column) {
        return memory.get(index(row, column));
    }

    /** Replaces one element. */
    public void set(int row, int column, double value) {
        memory.put(index(row, column), value);
    }

    /** Adds to one element. */
    public void add(int row, int column, double value) {
        long index = index(row, column);
        memory.put(index, memory.get(index) + value);
    }

    /** Copies a row into the first elements of {@code target}. */
    public void getRow(int row, double[] target) {
        Objects.checkIndex(row, rows);
        memory.get(offset + (long) row * stride, target, columns);
    }

    /** Replaces a row by the first elements of {@code values}. */
    public void setRow(int row, double[] values) {
        Objects.checkIndex(row, rows);
        memory.put(offset + (long) row * stride, values, columns);
    }

    /** A view of {@code rows x columns} elements whose first is at ({@code row}, {@code column}). */
    public Matrix block(int row, int column, int rows, int columns) {
        Objects.checkFromIndexSize(row, rows, this.rows);
        Objects.checkFromIndexSize(column, columns, this.columns);
        return new Matrix(memory, true, offset + (long) row * stride + column, rows, columns, stride);
    }

    /** Where the elements are. */
    public Place place() {
        return memory.place();
    }

    /** A copy of all elements, in the same place. */
    public Matrix copy() {
        Matrix result = uninitialized(place(), rows, columns);
        result.assign(this);
        return result;
    }

    /** Copies all elements of a matrix of the same size, which may live in another place. */
    public void assign(Matrix from) {
        if (from.rows != rows || from.columns != columns) {
            throw new IllegalArgumentException("a matrix of " + from + " cannot replace one of " + this);
        }
        if (!place().isHost() || !from.place().isHost()) {
            Place.copy(from, this);
            return;
        }
        double[] row = new double[columns];
        for (int i = 0; i < rows; i++) {
            from.getRow(i, row);
            setRow(i, row);
        }
    }

    /** A copy of the diagonal of a square matrix. */
    public double[] diagonal() {
        double[] result = new double[rows];
        if (place().isHost() || rows <= 1) {
            for (int i = 0; i < rows; i++) {
                result[i] = get(i, i);
            }
        } else {
            try (Matrix packed = uninitialized(place(), 1, rows)) {
                place().blas().copy(this, stride() + 1, packed, 1, rows);
                packed.getRow(0, result);
            }
        }
        return result;
    }

    /** A copy of the given rows on the host, in this order. */
    public Matrix selectRows(int[] selected) {
        Matrix result = uninitialized(selected.length, columns);
        double[] row = new double[columns];
        for (int i = 0; i < selected.length; i++) {
            getRow(selected[i], row);
            result.setRow(i, row);
        }
        return result;
    }

    /** A copy of the elements at the given rows and columns on the host, in this order. */
    public Matrix select(int[] selectedRows, int[] selectedColumns) {
        Matrix result = uninitialized(selectedRows.length, selectedColumns.length);
        select(selectedRows, selectedColumns, result);
        return result;
    }

    /**
     * Copies the elements at the given rows and columns, in this order.
     *
     * @param target {@code [selectedRows, selectedColumns]}
     */
    public void select(int[] selectedRows, int[] selectedColumns, Matrix target) {
        if (!place().isHost()) {
            selectFromDevice(selectedRows, selectedColumns, target);
            return;
        }
        double[] full = new double[columns];
        double[] selected = new double[selectedColumns.length];
        for (int i = 0; i < selectedRows.length; i++) {
            getRow(selectedRows[i], full);
            for (int j = 0; j < selected.length; j++) {
                selected[j] = full[selectedColumns[j]];
            }
            target.setRow(i, selected);
        }
    }

    /** Copies each run of consecutive rows to the host, from the first selected column to the last, and selects there. */
    private void selectFromDevice(int[] selectedRows, int[] selectedColumns, Matrix target) {
        int left = IntStream.of(selectedColumns).min().orElse(0);
        int width = IntStream.of(selectedColumns).max().orElse(-1) + 1 - left;
        int[] shifted =
                IntStream.of(selectedColumns).map(column -> column - left).toArray();
        int end;
        for (int begin = 0; begin < selectedRows.length && width > 0; begin = end) {
            end = begin + 1;
            while (end < selectedRows.length && end - begin < RUN && selectedRows[end] == selectedRows[end - 1] + 1) {
                end++;
            }
            int count = end - begin;
            try (Matrix run = Place.HOST.borrow(block(selectedRows[begin], left, count, width))) {
                run.select(IntStream.range(0, count).toArray(), shifted, target.block(begin, 0, count, shifted.length));
            }
        }
    }

    /** A copy on the host with one more row at the end. */
    public Matrix withRow(double[] last) {
        Matrix result = zeros(rows + 1, columns);
        double[] row = new double[columns];
        for (int i = 0; i < rows; i++) {
            getRow(i, row);
            result.setRow(i, row);
        }
        result.setRow(rows, last);
        return result;
    }

    /**
     * A copy of a symmetric matrix on the host with one more row and column at the end.
     *
     * @param border {@code [n]}, elements of the new row and of the new column
     * @param corner their common last element
     */
    public Matrix bordered(double[] border, double corner) {
        Matrix result = zeros(rows + 1, columns + 1);
        double[] row = new double[columns + 1];
        for (int i = 0; i < rows; i++) {
            getRow(i, row);
            row[columns] = border[i];
            result.setRow(i, row);
        }
        System.arraycopy(border, 0, row, 0, columns);
        row[columns] = corner;
        result.setRow(rows, row);
        return result;
    }

    /**
     * A copy on the host of a second moment Σ x xᵀ about the mean: Σ (x - μ)(x - μ)ᵀ = Σ x xᵀ - s sᵀ / count, with s = Σ x. Its inverse
     * is the block of the inputs in the inverse of {@link #bordered}.
     *
     * @param total {@code [n]}, s
     * @param count number of positions, more than 0
     */
    public Matrix centred(double[] total, double count) {
        Matrix result = zeros(rows, columns);
        double[] row = new double[columns];
        for (int i = 0; i < rows; i++) {
            getRow(i, row);
            double mean = total[i] / count;
            for (int j = 0; j < columns; j++) {
                row[j] -= mean * total[j];
            }
            result.setRow(i, row);
        }
        return result;
    }

    /** A transposed copy on the host. */
    public Matrix transposed() {
        Matrix result = uninitialized(columns, rows);
        double[] row = new double[columns];
        for (int i = 0; i < rows; i++) {
            getRow(i, row);
            for (int j = 0; j < columns; j++) {
                result.set(j, i, row[j]);
            }
        }
        return result;
    }

    /** Whether all elements are finite. */
    public boolean isFinite() {
        double[] row = new double[columns];
        for (int i = 0; i < rows; i++) {
            getRow(i, row);
            // Zero times a value is zero unless the value is infinite or NaN.
            double sum = 0;
            for (double value : row) {
                sum += 0 * value;
            }
            if (sum != 0) {
                return false;
            }
        }
        return true;
    }

    /**
     * Writes all elements to the buffer, row by row and rounded to float32, from its position on. The position does
     * not change.
     */
    public void copyTo(FloatBuffer target) {
        FloatBuffer sink = target.duplicate();
        float[] single = new float[columns];
        double[] row = new double[columns];
        for (int i = 0; i < rows; i++) {
            getRow(i, row);
            for (int j = 0; j < columns; j++) {
                single[j] = (float) row[j];
            }
            sink.put(single);
        }
    }

    /** Frees the elements, also for all views; does nothing on a view. */
    @Override
    public void close() {
        if (!view) {
            memory.free();
        }
    }

    @Override
    public String toString() {
        return rows + " x " + columns;
    }

    /** Number of elements between the beginnings of two rows. */
    int stride() {
        return Math.max(1, stride);
    }

    /** The first element of a matrix of the host. */
    DoublePointer pointer() {
        if (memory instanceof Memory.Host host) {
            return host.at(offset);
        }
        throw new IllegalStateException("the matrix is not in the host's memory");
    }

    /** The address of the first element, on the host or on the device. */
    long address() {
        return memory.address(offset);
    }

    private long index(int row, int column) {
        Objects.checkIndex(row, rows);
        Objects.checkIndex(column, columns);
        return offset + (long) row * stride + column;
    }
}
