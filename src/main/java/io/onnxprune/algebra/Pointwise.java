// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.algebra;

import java.util.List;

/** Operations on corresponding elements of matrices of equal size, which live in the same place. */
public final class Pointwise {
    /** Number of elements that one call of cuBLAS takes at most, unless one row has more. */
    private static final int BAND = 1 << 20;

    private Pointwise() {}

    /** The sum of the products of corresponding elements. */
    public static double dot(Matrix left, Matrix right) {
        check(left, right);
        double sum = 0;
        if (!left.place().isHost()) {
            int height = height(left, right);
            for (int row = 0; row < left.rows(); row += height) {
                Matrix one = band(left, row, height);
                sum += left.place().blas().dot(one, band(right, row, height), one.rows() * one.columns());
            }
            return sum;
        }
        double[] one = new double[left.columns()];
        double[] other = new double[left.columns()];
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
    public static void combine(double factor, Matrix term, double share, Matrix sum) {
        check(term, sum);
        if (!sum.place().isHost()) {
            sum.place().blas().combine(factor, term, share, sum);
            return;
        }
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

    /** Multiplies every element of {@code a} by that of {@code factors}. */
    public static void scale(Matrix a, Matrix factors) {
        check(a, factors);
        if (!a.place().isHost()) {
            int height = height(a, factors);
            for (int row = 0; row < a.rows(); row += height) {
                Matrix part = band(a, row, height);
                a.place().blas().scale(part, band(factors, row, height), part.rows() * part.columns());
            }
            return;
        }
        double[] row = new double[a.columns()];
        double[] other = new double[a.columns()];
        for (int j = 0; j < a.rows(); j++) {
            a.getRow(j, row);
            factors.getRow(j, other);
            for (int i = 0; i < row.length; i++) {
                row[i] *= other[i];
            }
            a.setRow(j, row);
        }
    }

    /** Number of rows that lie in both matrices without gaps and are taken together. */
    private static int height(Matrix one, Matrix other) {
        int columns = one.columns();
        boolean gaps = one.stride() != columns || other.stride() != columns;
        return gaps ? 1 : Math.max(1, BAND / Math.max(1, columns));
    }

    private static Matrix band(Matrix a, int row, int height) {
        return a.block(row, 0, Math.min(height, a.rows() - row), a.columns());
    }

    private static void check(Matrix one, Matrix other) {
        if (one.rows() != other.rows() || one.columns() != other.columns() || one.place() != other.place()) {
            throw new IllegalArgumentException("no operation on elements of matrices " + List.of(one, other));
        }
    }
}
