// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Cholesky;
import io.onnxprune.algebra.Matrix;
import java.util.Arrays;
import java.util.stream.IntStream;

/**
 * One layer while its units are removed: the inverse {@code p = (a+λI)⁻¹} and the products {@code s = w g wᵀ} of the
 * channels that are left, where {@code w} are the best remaining weights.
 *
 * <p>Removing unit B, with {@code p_BB = uᵀu}, makes of them
 *
 * <pre>
 *   p - lᵀl            l = u⁻ᵀ p_B:
 *   s - lᵀz - zᵀl      z = u⁻ᵀ s_B: - ½ k l      k = u⁻ᵀ s_BB u⁻¹
 * </pre>
 *
 * and costs ½ tr k. That is the Schur complement, and what the change {@code -lᵀu⁻ᵀw_B} of the weights does to {@code s};
 * the weights themselves are not needed. As in LAPACK's pivoted Cholesky factorisation (dpstrf), {@code l} and {@code z}
 * of several units are gathered in a <em>panel</em>: until it is full, only what the next pivot needs is brought up to
 * date, and then all of {@code p} and {@code s} by large products. Channels change places so that those left are the last
 * ones. Only upper triangles count.
 */
final class Downdate implements AutoCloseable {
    /** Channels of a panel: more make the large products faster and the pivots slower. */
    private static final int PANEL = 96;
    /** After so many removed channels the numbers are compared with what they should be. */
    private static final int PERIOD = 1024;
    /**
     * Relative error from which on they are computed anew. With the usual damping, 1 % of the mean diagonal, it stays below
     * 1e-10 when half of 11008 channels go; a second moment that is singular but for rounding errors exceeds it.
     */
    private static final double TOLERANCE = 1e-6;

    private final LayerProblem layer;
    private final double lambda;
    private final int period;
    private final double tolerance;
    private final int n;
    private final Matrix p;
    private final Matrix s;
    /** Rows of l and z, by position; p and s lack what the first {@link #filled} of them say. */
    private final Matrix panelOfL;

    private final Matrix panelOfZ;
    private int filled;
    /** The first position that is left. */
    private int first;

    private int checked;
    private double worst;
    private final int[] channelAt;
    private final int[] positionOf;
    private final SmallUnits small;

    /**
     * The layer with all its units.
     *
     * @throws SingularException when {@code a + λI} is not positive definite
     */
    Downdate(LayerProblem layer, double lambda) {
        this(layer, lambda, PANEL, PERIOD, TOLERANCE);
    }

    /** As above, with other settings than the constants of this class. */
    Downdate(LayerProblem layer, double lambda, int panel, int period, double tolerance) {
        this.layer = layer;
        this.lambda = lambda;
        this.period = period;
        this.tolerance = tolerance;
        n = layer.a().rows();
        channelAt = new int[n];
        positionOf = new int[n];
        Arrays.setAll(channelAt, i -> i);
        Arrays.setAll(positionOf, i -> i);
        small = new SmallUnits(layer.units());
        int capacity = layer.units().stream().mapToInt(unit -> unit.length).reduce(panel, Math::max);
        p = Matrix.padded(n);
        s = Matrix.padded(n);
        panelOfL = Matrix.zeros(capacity, n);
        panelOfZ = Matrix.zeros(capacity, n);
        try {
            compute();
        } catch (SingularException e) {
            close();
            throw e;
        }
    }

    /** The largest relative error that was found so far. */
    double worstDrift() {
        return worst;
    }

    /**
     * Adds what removing each unit that is left would cost now.
     *
     * @param grouped SlimGPT's approximation for units of several channels: ½ Σ s_jj/d_j, d the squared diagonal of u
     */
    void addCosts(double[] costs, boolean grouped) {
        for (int unit = 0; unit < costs.length; unit++) {
            int[] channels = layer.units().get(unit);
            if (channels.length > 0 && positionOf[channels[0]] >= first) {
                costs[unit] += small.size(unit) > 0 ? small.cost(unit, grouped) : largeCost(channels, grouped);
            }
        }
    }

    /**
     * Removes a unit.
     *
     * @return what that costs
     * @throws SingularException when its part of the inverse is not positive definite, not even when computed anew
     */
    double remove(int unit) {
        int[] channels = layer.units().get(unit);
        int size = channels.length;
        if (size == 0) {
            return 0;
        }
        if (filled + size > panelOfL.rows()) {
            flush();
        }
        for (int i = 0; i < size; i++) {
            exchange(first + i, positionOf[channels[i]]);
        }
        Matrix l = currentRowsOfP(size);
        if (!Cholesky.factor(l.block(0, 0, size, size))) {
            compute();
            l = currentRowsOfP(size);
            if (!Cholesky.factor(l.block(0, 0, size, size))) {
                throw new SingularException();
            }
        }
        Matrix z = currentRowsOfS(size);
        int rest = n - first - size;
        Matrix u = l.block(0, 0, size, size);
        Matrix k = z.block(0, 0, size, size);
        Matrix lRest = l.block(0, size, size, rest);
        Matrix zRest = z.block(0, size, size, rest);
        Blas.mirror(k);
        Blas.solveTriangle(u, true, z);
        Blas.solveTriangleFromRight(1, u, k);
        Blas.solveTriangle(u, true, lRest);
        Blas.multiply(-0.5, k, false, lRest, false, 1, zRest);
        double cost = 0.5 * trace(k);
        if (!Double.isFinite(cost)) {
            throw new SingularException();
        }
        filled += size;
        first += size;
        updateSmall(lRest, zRest);
        return Math.max(0, cost);
    }

    /** Brings p and s up to date. */
    private void flush() {
        if (filled > 0) {
            Matrix l = panelOfL.block(0, first, filled, n - first);
            Blas.rankUpdate(-1, l, true, 1, left(p));
            Blas.subtractTwice(l, panelOfZ.block(0, first, filled, n - first), left(s));
            filled = 0;
        }
        if (first - checked >= period && first < n) {
            checked = first;
            double drift = drift();
            worst = Math.max(worst, drift);
            // Written so that what is no number counts as too large.
            if (!(drift < tolerance)) {
                compute();
            }
        }
    }

    /** How far p and s are from what they should be. */
    double drift() {
        flush();
        return ResidualCheck.of(layer, lambda, Arrays.copyOfRange(channelAt, first, n), left(p), left(s));
    }

    /** p and s of what is left, from the second moment and the weights as they were at first. */
    private void compute() {
        int[] left = Arrays.copyOfRange(channelAt, first, n);
        int[] gone = Arrays.copyOfRange(channelAt, 0, first);
        Matrix inverse = left(p);
        layer.a().select(left, left, inverse);
        Damping.apply(inverse, lambda);
        if (!Cholesky.factor(inverse)) {
            throw new SingularException();
        }
        try (Matrix w = LeastSquares.remaining(layer.a(), layer.w(), left, gone, inverse)) {
            double[] zeros = new double[w.columns()];
            for (int i = 0; i < left.length; i++) {
                if (layer.a().get(left[i], left[i]) <= 0) {
                    w.setRow(i, zeros);
                }
            }
            Cholesky.invert(inverse);
            if (layer.g() == null) {
                Blas.rankUpdate(1, w, false, 0, left(s));
            } else {
                try (Matrix curved = Blas.product(w, layer.g())) {
                    Blas.symmetricProduct(curved, w, left(s));
                }
            }
        }
        filled = 0;
        small.read(p, s, positionOf, first);
    }

    /** The cost of a unit that is not small. */
    private double largeCost(int[] channels, boolean grouped) {
        int size = channels.length;
        int[] places = new int[size];
        for (int i = 0; i < size; i++) {
            places[i] = positionOf[channels[i]];
        }
        int[] rows = IntStream.range(0, filled).toArray();
        try (Matrix u = gather(p, places);
                Matrix k = gather(s, places);
                Matrix l = panelOfL.select(rows, places);
                Matrix z = panelOfZ.select(rows, places)) {
            Blas.rankUpdate(-1, l, true, 1, u);
            Blas.subtractTwice(l, z, k);
            if (!Cholesky.factor(u)) {
                return 0;
            }
            if (grouped) {
                double sum = 0;
                for (int i = 0; i < size; i++) {
                    sum += k.get(i, i) / (u.get(i, i) * u.get(i, i));
                }
                return Math.max(0, 0.5 * sum);
            }
            Blas.mirror(k);
            Blas.solveTriangle(u, true, k);
            Blas.solveTriangleFromRight(1, u, k);
            return Math.max(0, 0.5 * trace(k));
        }
    }

    /** The first rows of p that are left, up to date, in the next rows of the panel. */
    private Matrix currentRowsOfP(int size) {
        Matrix rows = copyRows(p, panelOfL, size);
        subtract(panelOfL, panelOfL, rows);
        return rows;
    }

    /** The first rows of s that are left, up to date, in the next rows of the panel. */
    private Matrix currentRowsOfS(int size) {
        Matrix rows = copyRows(s, panelOfZ, size);
        subtract(panelOfL, panelOfZ, rows);
        subtract(panelOfZ, panelOfL, rows);
        return rows;
    }

    private Matrix copyRows(Matrix from, Matrix panel, int size) {
        Matrix rows = panel.block(filled, first, size, n - first);
        double[] row = new double[n - first];
        for (int i = 0; i < size; i++) {
            from.block(first + i, first, 1, n - first).getRow(0, row);
            rows.setRow(i, row);
        }
        return rows;
    }

    /** Subtracts the first rows that are left of {@code xᵀy}, the panels as far as they are filled. */
    private void subtract(Matrix x, Matrix y, Matrix rows) {
        Matrix pivots = x.block(0, first, filled, rows.rows());
        Blas.multiply(-1, pivots, true, y.block(0, first, filled, n - first), false, 1, rows);
    }

    private void updateSmall(Matrix l, Matrix z) {
        double[] rowOfL = new double[l.columns()];
        double[] rowOfZ = new double[l.columns()];
        for (int row = 0; row < l.rows(); row++) {
            l.getRow(row, rowOfL);
            z.getRow(row, rowOfZ);
            small.subtract(rowOfL, rowOfZ, positionOf, first);
        }
    }

    /** Lets the channels of two positions change places. */
    private void exchange(int i, int j) {
        if (i == j) {
            return;
        }
        Blas.exchange(left(p), i - first, j - first);
        Blas.exchange(left(s), i - first, j - first);
        Blas.exchangeColumns(panelOfL.block(0, 0, filled, n), i, j);
        Blas.exchangeColumns(panelOfZ.block(0, 0, filled, n), i, j);
        int channel = channelAt[i];
        channelAt[i] = channelAt[j];
        channelAt[j] = channel;
        positionOf[channelAt[i]] = i;
        positionOf[channelAt[j]] = j;
    }

    /** The part of p or s that is left. */
    private Matrix left(Matrix matrix) {
        return matrix.block(first, first, n - first, n - first);
    }

    /** Rows and columns of a symmetric matrix. */
    private static Matrix gather(Matrix matrix, int[] places) {
        Matrix result = Matrix.zeros(places.length, places.length);
        for (int i = 0; i < places.length; i++) {
            for (int j = i; j < places.length; j++) {
                result.set(i, j, matrix.get(Math.min(places[i], places[j]), Math.max(places[i], places[j])));
            }
        }
        return result;
    }

    private static double trace(Matrix matrix) {
        double sum = 0;
        for (int i = 0; i < matrix.rows(); i++) {
            sum += matrix.get(i, i);
        }
        return sum;
    }

    @Override
    public void close() {
        p.close();
        s.close();
        panelOfL.close();
        panelOfZ.close();
    }
}
