// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.diag.Log;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.stream.IntStream;
import org.apache.commons.math3.linear.Array2DRowRealMatrix;
import org.apache.commons.math3.linear.ArrayRealVector;
import org.apache.commons.math3.linear.LUDecomposition;
import org.apache.commons.math3.linear.MatrixUtils;
import org.apache.commons.math3.linear.RealMatrix;
import org.apache.commons.math3.linear.RealVector;

/** Small random problems, solved by dense normal equations over all elements of the weights. */
final class Problems {
    static final int TOKENS = 40;

    private Problems() {}

    static Damping damping(double share) {
        return new Damping(share, TOKENS, "layer", Log.NONE);
    }

    /** Correlated inputs: {@code tokens x n}. */
    static RealMatrix inputs(Random random, int tokens, int n) {
        RealMatrix x = random(random, tokens, n);
        RealMatrix mix =
                MatrixUtils.createRealIdentityMatrix(n).add(random(random, n, n).scalarMultiply(0.4));
        return x.multiply(mix);
    }

    static RealMatrix random(Random random, int rows, int columns) {
        double[][] values = new double[rows][columns];
        for (double[] row : values) {
            for (int j = 0; j < columns; j++) {
                row[j] = random.nextGaussian();
            }
        }
        return new Array2DRowRealMatrix(values, false);
    }

    static Matrix matrix(RealMatrix values) {
        return Matrix.of(values.getData());
    }

    static RealMatrix real(Matrix matrix) {
        RealMatrix result = MatrixUtils.createRealMatrix(matrix.rows(), matrix.columns());
        for (int i = 0; i < matrix.rows(); i++) {
            for (int j = 0; j < matrix.columns(); j++) {
                result.setEntry(i, j, matrix.get(i, j));
            }
        }
        return result;
    }

    /**
     * A layer with units of the given sizes, in random order of channels.
     *
     * @param withGradients whether the layer has a {@code g}
     * @param spare number of channels of no unit
     */
    static LayerProblem layer(Random random, int out, boolean withGradients, int spare, int... sizes) {
        int n = IntStream.of(sizes).sum() + spare;
        List<Integer> channels = new ArrayList<>(IntStream.range(0, n).boxed().toList());
        Collections.shuffle(channels, random);
        List<int[]> units = new ArrayList<>();
        int next = 0;
        for (int size : sizes) {
            units.add(channels.subList(next, next + size).stream()
                    .mapToInt(Integer::intValue)
                    .sorted()
                    .toArray());
            next += size;
        }
        RealMatrix x = inputs(random, TOKENS, n);
        RealMatrix d = inputs(random, TOKENS, out);
        return new LayerProblem(
                matrix(x.transpose().multiply(x)),
                matrix(random(random, n, out)),
                withGradients ? matrix(d.transpose().multiply(d).scalarMultiply(1.0 / TOKENS)) : null,
                units);
    }

    /** {@code a + λI} with λ as a share of the mean diagonal. */
    static RealMatrix damped(Matrix a, double share) {
        RealMatrix result = real(a);
        int n = a.rows();
        return result.add(MatrixUtils.createRealIdentityMatrix(n).scalarMultiply(share * result.getTrace() / n));
    }

    static RealMatrix inverse(RealMatrix a) {
        return new LUDecomposition(a).getSolver().getInverse();
    }

    /** ½ tr(Δwᵀ a Δw g). */
    static double loss(RealMatrix a, RealMatrix change, Matrix g) {
        RealMatrix inner = change.transpose().multiply(a).multiply(change);
        return 0.5 * (g == null ? inner : inner.multiply(real(g))).getTrace();
    }

    /** The change Δw that sets the rows of {@code removed} to zero at least loss. */
    static RealMatrix bestChange(RealMatrix a, LayerProblem layer, boolean[] removed) {
        int out = layer.w().columns();
        boolean[][] elements = new boolean[removed.length][out];
        for (int i = 0; i < removed.length; i++) {
            Arrays.fill(elements[i], removed[i]);
        }
        RealMatrix g = layer.g() == null ? MatrixUtils.createRealIdentityMatrix(out) : real(layer.g());
        return bestChange(a, g, real(layer.w()), elements);
    }

    /** The change Δw with the least ½ vec(Δw)ᵀ (a ⊗ g) vec(Δw) that sets the elements of {@code removed} to zero. */
    static RealMatrix bestChange(RealMatrix a, RealMatrix g, RealMatrix w, boolean[][] removed) {
        int n = w.getRowDimension();
        int out = w.getColumnDimension();
        RealMatrix change = MatrixUtils.createRealMatrix(n, out);
        int[] free = IntStream.range(0, n * out)
                .filter(e -> !removed[e / out][e % out])
                .toArray();
        int[] fixed = IntStream.range(0, n * out)
                .filter(e -> removed[e / out][e % out])
                .toArray();
        RealVector fixedChange = new ArrayRealVector(fixed.length);
        for (int i = 0; i < fixed.length; i++) {
            double value = -w.getEntry(fixed[i] / out, fixed[i] % out);
            fixedChange.setEntry(i, value);
            change.setEntry(fixed[i] / out, fixed[i] % out, value);
        }
        if (free.length > 0 && fixed.length > 0) {
            RealVector solution = new LUDecomposition(kronecker(a, g, free, free))
                    .getSolver()
                    .solve(kronecker(a, g, free, fixed).operate(fixedChange).mapMultiply(-1));
            for (int i = 0; i < free.length; i++) {
                change.setEntry(free[i] / out, free[i] % out, solution.getEntry(i));
            }
        }
        return change;
    }

    private static RealMatrix kronecker(RealMatrix a, RealMatrix g, int[] rows, int[] columns) {
        int out = g.getRowDimension();
        RealMatrix result = MatrixUtils.createRealMatrix(rows.length, columns.length);
        for (int i = 0; i < rows.length; i++) {
            for (int j = 0; j < columns.length; j++) {
                result.setEntry(
                        i,
                        j,
                        a.getEntry(rows[i] / out, columns[j] / out) * g.getEntry(rows[i] % out, columns[j] % out));
            }
        }
        return result;
    }
}
