// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.algebra;

import java.nio.FloatBuffer;
import java.util.Objects;
import org.bytedeco.javacpp.DoublePointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.indexer.DoubleIndexer;

/**
 * A dense matrix of float64, row-major, outside the heap; any number of elements. Or a view of a block of another matrix,
 * which shares its elements: closing the matrix that was made frees them, closing a view does nothing.
 *
 * <p>Elements are read and written one at a time or by row; all heavier work is {@link Blas}'s. Not for use by several
 * threads while one of them writes.
 */
public final class Matrix implements AutoCloseable {
    /** What a matrix and its views share; emptied when the matrix is closed. */
    private static final class Memory {
        private DoublePointer pointer;
        private DoubleIndexer indexer;

        Memory(long elements) {
            NativeBlas.load();
            // At least one element, so that an empty matrix has an address too.
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

    /** A matrix whose elements are not set yet. */
    static Matrix uninitialized(int rows, int columns) {
        if (rows < 0 || columns < 0) {
            throw new IllegalArgumentException(rows + " x " + columns + " is no size of a matrix");
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
     * A square matrix of zeros whose rows are a little apart in memory, so that elements of one column do not compete for
     * the same places of the processor's cache.
     */
    public static Matrix padded(int n) {
        int stride = n % 64 == 0 ? n + 8 : n;
        Matrix all = zeros(n, stride);
        return new Matrix(all.memory, false, 0, n, n, stride);
    }

    /** A copy of numbers row by row. */
    public static Matrix of(double[][] values) {
        Matrix result = uninitialized(values.length, values.length == 0 ? 0 : values[0].length);
        for (int row = 0; row < values.length; row++) {
            result.setRow(row, values[row]);
        }
        return result;
    }

    /** A copy of {@code rows x columns} numbers from the buffer's position on, which is left as it is. */
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

    /** One element. */
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

    /** A view of {@code rows x columns} elements from ({@code row}, {@code column}) on. */
    public Matrix block(int row, int column, int rows, int columns) {
        Objects.checkFromIndexSize(row, rows, this.rows);
        Objects.checkFromIndexSize(column, columns, this.columns);
        return new Matrix(memory, true, offset + (long) row * stride + column, rows, columns, stride);
    }

    /** A copy. */
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

    /** A copy of the elements where the given rows and columns cross, in this order. */
    public Matrix select(int[] selectedRows, int[] selectedColumns) {
        Matrix result = uninitialized(selectedRows.length, selectedColumns.length);
        select(selectedRows, selectedColumns, result);
        return result;
    }

    /** Copies the elements where the given rows and columns cross to a matrix of that size. */
    public void select(int[] selectedRows, int[] selectedColumns, Matrix target) {
        double[] whole = new double[columns];
        double[] part = new double[selectedColumns.length];
        for (int i = 0; i < selectedRows.length; i++) {
            getRow(selectedRows[i], whole);
            for (int j = 0; j < part.length; j++) {
                part[j] = whole[selectedColumns[j]];
            }
            target.setRow(i, part);
        }
    }

    /** A copy with one row more at the end. */
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
     * A copy with one row and one column more at the end, the same numbers in both.
     *
     * @param border {@code [n]}
     * @param corner the last element of both
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

    /** A copy with rows and columns exchanged. */
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

    /** Whether no element is infinite or no number. */
    public boolean isFinite() {
        double[] row = new double[columns];
        for (int i = 0; i < rows; i++) {
            getRow(i, row);
            // Zero times a number is zero unless the number is infinite or none.
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

    /** Puts all elements, row by row and rounded to float32, where the buffer's position is, which is left as it is. */
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

    /** Frees the elements, for all views too; nothing for a view. */
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

    /** Elements from the beginning of one row to that of the next. */
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
