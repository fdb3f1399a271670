// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Cholesky;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.algebra.Place;
import java.util.Arrays;
import java.util.stream.IntStream;

/**
 * The state of one linear layer while its input units are removed: the inverse {@code p = (a+λI)⁻¹} and the matrix
 * {@code s = w g wᵀ}, both over the remaining channels. {@code w} are the optimal weights of the remaining channels.
 *
 * <p>Removing unit B changes both. With {@code p_BB = uᵀu}:
 *
 * <pre>
 *   p - lᵀl            l = u⁻ᵀ p_B:
 *   s - lᵀz - zᵀl      z = u⁻ᵀ s_B: - ½ k l      k = u⁻ᵀ s_BB u⁻¹
 * </pre>
 *
 * <p>The removal costs ½ tr k. The first line is the Schur complement. The second is the effect of the weight update
 * {@code -lᵀu⁻ᵀw_B} on {@code s}, so the weights themselves are not needed.
 *
 * <p>The work is blocked as in LAPACK's pivoted Cholesky factorisation (dpstrf). Rows of {@code l} and {@code z} are
 * gathered in a <em>panel</em>. Until the panel is full, only the rows of the next pivot are updated. Then all of
 * {@code p} and {@code s} are updated by large matrix products. Channels are permuted so that the remaining ones come
 * last. Only upper triangles are used.
 *
 * <p>On a GPU, {@code p}, {@code s} and the panels stay there. Removing a unit of one channel copies its rows of l and z
 * to the host, for the small units, and three numbers.
 */
final class Downdate implements AutoCloseable {
    /** Number of channels in a panel. More of them make the matrix products faster and each pivot slower. */
    private static final int PANEL = 96;
    /** Number of removed channels after which {@code p} and {@code s} are checked against their definitions. */
    private static final int PERIOD = 1024;
    /**
     * Relative residual from which on {@code p} and {@code s} are recomputed. With the usual damping of 1 % of the
     * mean diagonal, the residual stays below 1e-10 when half of 11008 channels are removed. It exceeds this tolerance
     * when the second moment is singular up to rounding errors.
     */
    private static final double TOLERANCE = 1e-6;

    private final LayerProblem layer;
    private final double lambda;
    private final int period;
    private final double tolerance;
    private final int n;
    private final Matrix p;
    private final Matrix s;
    /** Rows of l and z, by position. The first {@link #filled} rows are not yet applied to p and s. */
    private final Matrix panelOfL;

    private final Matrix panelOfZ;
    private int filled;
    /** The first remaining position; channels at earlier positions are removed. */
    private int first;

    private int checked;
    private double worstResidual;
    private final int[] channelAt;
    private final int[] positionOf;
    private final SmallUnits small;

    /**
     * Creates the state before any unit is removed.
     *
     * @throws SingularException when {@code a + λI} is not positive definite
     */
    Downdate(LayerProblem layer, double lambda) {
        this(layer, lambda, PANEL, PERIOD, TOLERANCE);
    }

    /**
     * Creates the state before any unit is removed, with chosen settings for tests.
     *
     * @param panel number of channels in a panel
     * @param period number of removed channels between two checks
     * @param tolerance relative residual from which on the state is recomputed
     * @throws SingularException when {@code a + λI} is not positive definite
     */
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
        Place place = Place.forWork(n, 2L * n * (n + capacity + layer.w().columns()));
        p = place.padded(n);
        s = place.padded(n);
        panelOfL = place.zeros(capacity, n);
        panelOfZ = place.zeros(capacity, n);
        try {
            compute();
        } catch (RuntimeException e) {
            close();
            throw e;
        }
    }

    /** Where the state lives. */
    Place place() {
        return p.place();
    }

    /** The largest relative residual of all checks so far. */
    double worstResidual() {
        return worstResidual;
    }

    /**
     * Adds to {@code costs} the cost of removing each remaining unit next.
     *
     * @param costs one element for each unit
     * @param grouped whether units of several channels are scored by SlimGPT's approximation ½ Σ s_jj/d_j, with d the
     *     squared diagonal of u, instead of exactly
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
     * @return the cost of the removal, not negative
     * @throws SingularException when p_BB is not positive definite, even after p and s were recomputed
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
        int remaining = n - first - size;
        Matrix u = l.block(0, 0, size, size);
        Matrix k = z.block(0, 0, size, size);
        Matrix lRemaining = l.block(0, size, size, remaining);
        Matrix zRemaining = z.block(0, size, size, remaining);
        Blas.mirror(k);
        Blas.solveTriangle(u, true, z);
        Blas.solveTriangleFromRight(1, u, k);
        Blas.solveTriangle(u, true, lRemaining);
        Blas.multiply(-0.5, k, false, lRemaining, false, 1, zRemaining);
        double cost = 0.5 * trace(k);
        if (!Double.isFinite(cost)) {
            throw new SingularException();
        }
        filled += size;
        first += size;
        updateSmall(lRemaining, zRemaining);
        return Math.max(0, cost);
    }

    /** Applies the panel to p and s, and checks them when a check is due. */
    private void flush() {
        if (filled > 0) {
            Matrix l = panelOfL.block(0, first, filled, n - first);
            Blas.rankUpdate(-1, l, true, 1, active(p));
            Blas.subtractTwice(l, panelOfZ.block(0, first, filled, n - first), active(s));
            filled = 0;
        }
        if (first - checked >= period && first < n) {
            checked = first;
            double residual = residual();
            worstResidual = Math.max(worstResidual, residual);
            // NaN must count as too large.
            if (!(residual < tolerance)) {
                compute();
            }
        }
    }

    /** The relative residual of p and s against their definitions. */
    double residual() {
        flush();
        return ResidualCheck.of(layer, lambda, Arrays.copyOfRange(channelAt, first, n), active(p), active(s));
    }

    /** Computes p and s of the remaining channels anew from the second moment and the original weights. */
    private void compute() {
        int[] remaining = Arrays.copyOfRange(channelAt, first, n);
        int[] removed = Arrays.copyOfRange(channelAt, 0, first);
        Matrix inverse = active(p);
        damped(remaining, inverse);
        if (!Cholesky.factor(inverse)) {
            throw new SingularException();
        }
        try (Matrix w = LeastSquares.optimalWeights(layer.a(), layer.w(), remaining, removed, inverse)) {
            double[] zeros = new double[w.columns()];
            for (int i = 0; i < remaining.length; i++) {
                if (layer.a().get(remaining[i], remaining[i]) <= 0) {
                    w.setRow(i, zeros);
                }
            }
            Cholesky.invert(inverse);
            form(w, active(s));
        }
        filled = 0;
        small.read(p, s, positionOf, first);
    }

    /** The damped second moment of the given channels. */
    private void damped(int[] channels, Matrix target) {
        if (target.place().isHost()) {
            layer.a().select(channels, channels, target);
            Damping.apply(target, lambda);
            return;
        }
        try (Matrix moment = layer.a().select(channels, channels)) {
            Damping.apply(moment, lambda);
            target.assign(moment);
        }
    }

    /** {@code target = w g wᵀ}, upper triangle. */
    private void form(Matrix w, Matrix target) {
        Place place = target.place();
        try (Matrix left = place.borrow(w)) {
            if (layer.g() == null) {
                Blas.rankUpdate(1, left, false, 0, target);
                return;
            }
            try (Matrix g = place.borrow(layer.g());
                    Matrix product = Blas.product(left, g)) {
                Blas.symmetricProduct(product, left, target);
            }
        }
    }

    /** The cost of removing a unit that is too large for {@link SmallUnits}; 0 when p_BB is not positive definite. */
    private double largeCost(int[] channels, boolean grouped) {
        int size = channels.length;
        int[] positions = new int[size];
        for (int i = 0; i < size; i++) {
            positions[i] = positionOf[channels[i]];
        }
        int[] rows = IntStream.range(0, filled).toArray();
        try (Matrix u = gather(p, positions);
                Matrix k = gather(s, positions);
                Matrix l = panelOfL.select(rows, positions);
                Matrix z = panelOfZ.select(rows, positions)) {
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

    /** Copies the first remaining rows of p to the next rows of the panel and applies the panel to them. */
    private Matrix currentRowsOfP(int size) {
        Matrix rows = copyRows(p, panelOfL, size);
        subtract(panelOfL, panelOfL, rows);
        return rows;
    }

    /** Copies the first remaining rows of s to the next rows of the panel and applies the panel to them. */
    private Matrix currentRowsOfS(int size) {
        Matrix rows = copyRows(s, panelOfZ, size);
        subtract(panelOfL, panelOfZ, rows);
        subtract(panelOfZ, panelOfL, rows);
        return rows;
    }

    private Matrix copyRows(Matrix from, Matrix panel, int size) {
        Matrix rows = panel.block(filled, first, size, n - first);
        rows.assign(from.block(first, first, size, n - first));
        return rows;
    }

    /** Subtracts from {@code rows} the first remaining rows of {@code xᵀy}, over the filled rows of both panels. */
    private void subtract(Matrix x, Matrix y, Matrix rows) {
        Matrix pivots = x.block(0, first, filled, rows.rows());
        Blas.multiply(-1, pivots, true, y.block(0, first, filled, n - first), false, 1, rows);
    }

    private void updateSmall(Matrix l, Matrix z) {
        if (small.isEmpty()) {
            return;
        }
        double[] rowOfL = new double[l.columns()];
        double[] rowOfZ = new double[l.columns()];
        for (int row = 0; row < l.rows(); row++) {
            l.getRow(row, rowOfL);
            z.getRow(row, rowOfZ);
            small.subtract(rowOfL, rowOfZ, positionOf, first);
        }
    }

    /** Exchanges the channels at two positions. */
    private void exchange(int i, int j) {
        if (i == j) {
            return;
        }
        Blas.exchange(active(p), i - first, j - first);
        Blas.exchange(active(s), i - first, j - first);
        Blas.exchangeColumns(panelOfL.block(0, 0, filled, n), i, j);
        Blas.exchangeColumns(panelOfZ.block(0, 0, filled, n), i, j);
        int channel = channelAt[i];
        channelAt[i] = channelAt[j];
        channelAt[j] = channel;
        positionOf[channelAt[i]] = i;
        positionOf[channelAt[j]] = j;
    }

    /** The block of p or s that belongs to the remaining channels. */
    private Matrix active(Matrix matrix) {
        return matrix.block(first, first, n - first, n - first);
    }

    /** A copy of the given rows and columns of a symmetric matrix on the host, upper triangle only. */
    private static Matrix gather(Matrix matrix, int[] positions) {
        if (!matrix.place().isHost()) {
            int[] sorted = IntStream.of(positions).sorted().toArray();
            try (Matrix all = matrix.select(sorted, sorted)) {
                return gather(
                        all,
                        IntStream.of(positions)
                                .map(position -> Arrays.binarySearch(sorted, position))
                                .toArray());
            }
        }
        Matrix result = Matrix.zeros(positions.length, positions.length);
        for (int i = 0; i < positions.length; i++) {
            for (int j = i; j < positions.length; j++) {
                result.set(
                        i, j, matrix.get(Math.min(positions[i], positions[j]), Math.max(positions[i], positions[j])));
            }
        }
        return result;
    }

    private static double trace(Matrix matrix) {
        double sum = 0;
        for (double element : matrix.diagonal()) {
            sum += element;
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
