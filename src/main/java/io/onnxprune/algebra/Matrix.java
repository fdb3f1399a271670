// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.algebra;

import java.nio.FloatBuffer;
import java.util.Objects;
import org.bytedeco.javacpp.DoublePointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.indexer.DoubleIndexer;

/**
 * A dense row-major matrix of float64 outside the heap, with any number of elements, or a view of a block of one. A
 * view shares the elements of its matrix. Closing the matrix frees them; closing a view does nothing.
 *
 * <p>Elements are read and written singly or by row; {@link Blas} does all heavier work. Instances must not be used by
 * several threads while one of them writes.
 */
public final class Matrix implements AutoCloseable {
    /** The memory that a matrix and its views share; it is released when the matrix is closed. */
    private static final class Memory {
        private DoublePointer pointer;
        private DoubleIndexer indexer;

        Memory(long elements) {
            NativeBlas.load();
            // At least one element, so that an empty matrix has a valid address.
            pointer = new DoublePointer(Math.max(1, elements));
            indexer = DoubleIndexer.create(pointer);
        }

        DoubleIndexer elements() {
            if (indexer == null) {
                throw new IllegalStateException("the matrix is closed");
            }
            return indexer;
        }

        DoublePointer at(long offset) {
            elements();
            return offset == 0 ? pointer : pointer.getPointer(offset);
        }

        void free() {
            if (indexer != null) {
                indexer = null;
                pointer.deallocate();
            }
        }
    }

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

    /** A matrix whose elements are not initialised. */
    static Matrix uninitialized(int rows, int columns) {
        if (rows < 0 || columns < 0) {
            throw new IllegalArgumentException("a matrix cannot be " + rows + " x " + columns);
        }
        return new Matrix(new Memory((long) rows * columns), false, 0, rows, columns, columns);
    }

    /** A matrix of zeros. */
    public static Matrix zeros(int rows, int columns) {
        Matrix result = uninitialized(rows, columns);
        Pointer.memset(result.memory.pointer, 0, (long) rows * columns * Double.BYTES);
        return result;
    }

    /**
     * An {@code n x n} matrix of zeros whose row stride is not a multiple of 64 elements, so that elements of one
     * column do not map to the same cache sets.
     */
    public static Matrix padded(int n) {
        int stride = n % 64 == 0 ? n + 8 : n;
        Matrix all = zeros(n, stride);
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
        return memory.elements().get(index(row, column));
    }

    /** Replaces one element. */
    public void set(int row, int column, double value) {
        memory.elements().put(index(row, column), value);
    }

    /** Adds to one element. */
    public void add(int row, int column, double value) {
        long index = index(row, column);
        memory.elements().put(index, memory.elements().get(index) + value);
    }

    /** Copies a row into the first elements of {@code target}. */
    public void getRow(int row, double[] target) {
        Objects.checkIndex(row, rows);
        at(row, 0).get(target, 0, columns);
    }

    /** Replaces a row by the first elements of {@code values}. */
    public void setRow(int row, double[] values) {
        Objects.checkIndex(row, rows);
        at(row, 0).put(values, 0, columns);
    }

    /** A view of {@code rows x columns} elements whose first is at ({@code row}, {@code column}). */
    public Matrix block(int row, int column, int rows, int columns) {
        Objects.checkFromIndexSize(row, rows, this.rows);
        Objects.checkFromIndexSize(column, columns, this.columns);
        return new Matrix(memory, true, offset + (long) row * stride + column, rows, columns, stride);
    }

    /** A copy of all elements. */
    public Matrix copy() {
        Matrix result = uninitialized(rows, columns);
        double[] row = new double[columns];
        for (int i = 0; i < rows; i++) {
            getRow(i, row);
            result.setRow(i, row);
        }
        return result;
    }

    /** A copy of the given rows, in this order. */
    public Matrix selectRows(int[] selected) {
        Matrix result = uninitialized(selected.length, columns);
        double[] row = new double[columns];
        for (int i = 0; i < selected.length; i++) {
            getRow(selected[i], row);
            result.setRow(i, row);
        }
        return result;
    }

    /** A copy of the elements at the given rows and columns, in this order. */
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

    /** A copy with one more row at the end. */
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
     * A copy of a symmetric matrix with one more row and column at the end.
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

    /** A transposed copy. */
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

    /** The address of the first element. */
    DoublePointer pointer() {
        return memory.at(offset);
    }

    private DoublePointer at(int row, int column) {
        return memory.at(offset + (long) row * stride + column);
    }

    private long index(int row, int column) {
        Objects.checkIndex(row, rows);
        Objects.checkIndex(column, columns);
        return offset + (long) row * stride + column;
    }
}
