// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Cholesky;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.algebra.Place;
import java.util.BitSet;
import java.util.List;
import java.util.stream.IntStream;

/**
 * Weight updates of a linear layer as solutions of least-squares problems: compensation for pruned inputs, and
 * correction of an output error.
 */
public final class LeastSquares {
    /**
     * Sums over the same positions as a second moment, needed to fit a bias.
     *
     * @param inputs Σ x, {@code [n]}
     * @param errors Σ e, {@code [out]}
     * @param positions number of positions
     */
    @SuppressWarnings("ArrayRecordComponent") // a holder, never compared
    public record Sums(double[] inputs, double[] errors, long positions) {}

    /**
     * A change to be added to a linear layer's weights and bias.
     *
     * @param weights {@code [n, out]}, zero outside the kept rows
     * @param bias {@code [out]}; null for a fit without one
     */
    @SuppressWarnings("ArrayRecordComponent") // a result, never compared
    public record Correction(Matrix weights, double[] bias) implements AutoCloseable {
        @Override
        public void close() {
            weights.close();
        }
    }

    private LeastSquares() {}

    /**
     * The weights on the kept inputs whose outputs are nearest to those of the dense layer: the minimum of ½ tr(Δwᵀ
     * (a+λI) Δw). {@link GreedyRemoval} has the same solution, for any order of removal and any {@code g}.
     *
     * @param a second moment of the inputs {@code [n, n]}, symmetric
     * @param w weights of the dense layer {@code [n, out]}
     * @param kept the kept input channels, ascending
     * @param damping λ as a share of the mean diagonal of {@code a}; {@link RemovalOrder#damping()} gives the same
     *     solution
     * @return {@code [n, out]}, zero outside the kept rows; the caller closes it
     * @throws io.onnxprune.diag.UserException when a value is not finite or the second moment cannot be inverted
     */
    public static Matrix keep(Matrix a, Matrix w, int[] kept, Damping damping) {
        damping.checkFinite(a, "second moment of the inputs");
        damping.checkFinite(w, "weight");
        BitSet isKept = new BitSet(a.rows());
        IntStream.of(kept).forEach(isKept::set);
        int[] pruned = IntStream.range(0, a.rows()).filter(i -> !isKept.get(i)).toArray();
        double mean = Damping.meanDiagonal(a);
        Matrix result = Matrix.zeros(a.rows(), w.columns());
        try (Matrix factor = damping.raise(kept.length, share -> Damping.factored(a.select(kept, kept), share * mean));
                Matrix updated = optimalWeights(a, w, kept, pruned, factor)) {
            scatter(updated, kept, result);
        }
        return result;
    }

    /**
     * The weights on the kept inputs and outputs that are nearest to the dense layer: the minimum of ½ tr(Δwᵀ (a+λI)
     * Δw (g+γI)), which is {@code (a+λ)_KK⁻¹ (a+λ)_K: w (g+γ)_:L (g+γ)_LL⁻¹}. It is computed by removing the inputs
     * first and then the outputs. This is the joint form of the LLM Surgeon's update (arXiv 2312.17244); its released
     * code adds the updates of rows and of columns instead.
     *
     * @param a second moment of the inputs {@code [n, n]}, symmetric
     * @param g second moment of the gradients of the outputs {@code [out, out]}, symmetric
     * @param w weights of the dense layer {@code [n, out]}
     * @param kept the kept input channels, ascending
     * @param keptOutputs the kept output channels, ascending
     * @param damping λ as a share of the mean diagonal of {@code a}
     * @param outputDamping γ as a share of the mean diagonal of {@code g}
     * @return {@code [n, out]}, zero outside the kept rows and columns; the caller closes it
     * @throws io.onnxprune.diag.UserException when a value is not finite or a second moment cannot be inverted
     */
    public static Matrix keep(
            Matrix a, Matrix g, Matrix w, int[] kept, int[] keptOutputs, Damping damping, Damping outputDamping) {
        try (Matrix withoutInputs = keep(a, w, kept, damping);
                Matrix transposed = withoutInputs.transposed();
                Matrix withoutOutputs = keep(g, transposed, keptOutputs, outputDamping)) {
            return withoutOutputs.transposed();
        }
    }

    /**
     * The weights after independent updates (LLM Surgeon, arXiv 2312.17244, section 4.3): for each removed unit the
     * change {@code -p_:B p_BB⁻¹ w_B}, with {@code p = (a+λI)⁻¹}, which is optimal when only that unit is removed. The
     * changes are added.
     *
     * @param a second moment of the inputs {@code [n, n]}, symmetric
     * @param w weights of the dense layer {@code [n, out]}
     * @param removed channels of each removed unit
     * @param damping λ as a share of the mean diagonal of {@code a}
     * @return {@code [n, out]}, zero in the rows of removed units; the caller closes it
     * @throws io.onnxprune.diag.UserException when a value is not finite or the second moment cannot be inverted
     */
    public static Matrix independentUpdates(Matrix a, Matrix w, List<int[]> removed, Damping damping) {
        damping.checkFinite(a, "second moment of the inputs");
        damping.checkFinite(w, "weight");
        double mean = Damping.meanDiagonal(a);
        int[] all = IntStream.range(0, a.rows()).toArray();
        Matrix result = w.copy();
        Matrix inverse = damping.raise(a.rows(), share -> Damping.factored(a.copy(), share * mean));
        Cholesky.invert(inverse);
        Blas.mirror(inverse);
        try (Matrix p = Place.HOST.move(inverse)) {
            for (int[] unit : removed) {
                try (Matrix factor = p.select(unit, unit);
                        Matrix unitWeights = w.selectRows(unit);
                        Matrix across = p.select(all, unit)) {
                    if (!Cholesky.factor(factor)) {
                        throw new IllegalStateException(
                                "a principal block of a positive definite matrix is not positive definite");
                    }
                    Cholesky.solve(factor, unitWeights);
                    Blas.multiply(-1, across, false, unitWeights, false, 1, result);
                }
            }
        }
        double[] zeros = new double[w.columns()];
        removed.forEach(unit -> IntStream.of(unit).forEach(channel -> result.setRow(channel, zeros)));
        return result;
    }

    /**
     * The optimal weights {@code [kept, out]} after pruning, as
     * {@code (a+λ)_KK⁻¹ (a+λ)_K: w = w_K + (a+λ)_KK⁻¹ a_KR w_R}, with K the kept and R the pruned channels.
     *
     * @param factor Cholesky factor of {@code (a+λ)_KK}
     */
    static Matrix optimalWeights(Matrix a, Matrix w, int[] kept, int[] pruned, Matrix factor) {
        if (pruned.length == 0) {
            return w.selectRows(kept);
        }
        int[] live = IntStream.of(pruned).filter(i -> a.get(i, i) > 0).toArray();
        try (Matrix across = a.select(kept, live);
                Matrix prunedWeights = w.selectRows(live)) {
            Matrix result = Blas.largeProduct(across, prunedWeights);
            clearDead(a, kept, result);
            Cholesky.solve(factor, result);
            addRows(w, kept, result);
            return result;
        }
    }

    /**
     * The change of the weights on the kept inputs that corrects an output error {@code e}: the ridge regression of
     * {@code e} on the inputs {@code x}.
     *
     * @param a second moment of the current inputs, Σ xᵀx, {@code [n, n]}, symmetric
     * @param c Σ xᵀe, {@code [n, out]}
     * @param kept the channels whose weights may change, ascending
     * @param sums sums to fit a bias too; null for none
     * @param ridge the ridge as a share of the mean diagonal over the kept channels
     * @return the change; the caller closes it
     * @throws io.onnxprune.diag.UserException when a value is not finite or the second moment cannot be inverted
     */
    public static Correction correction(Matrix a, Matrix c, int[] kept, Sums sums, Damping ridge) {
        ridge.checkFinite(a, "second moment of the inputs");
        ridge.checkFinite(c, "product of inputs and errors");
        Matrix result = Matrix.zeros(a.rows(), c.columns());
        try (Matrix moment = a.select(kept, kept);
                Matrix change = c.selectRows(kept)) {
            double[] means = new double[kept.length];
            if (sums != null) {
                center(moment, change, kept, sums, means);
            }
            clearDead(a, kept, change);
            double mean = Damping.meanDiagonal(moment);
            try (Matrix factor = ridge.raise(kept.length, share -> Damping.factored(moment.copy(), share * mean))) {
                Cholesky.solve(factor, change);
            }
            scatter(change, kept, result);
            return new Correction(result, sums == null ? null : bias(change, means, sums));
        }
    }

    /** Replaces the second moments by those about the means: {@code a - N μμᵀ} and {@code c - N μēᵀ}. */
    private static void center(Matrix a, Matrix c, int[] kept, Sums sums, double[] means) {
        double[] row = new double[Math.max(a.columns(), c.columns())];
        for (int i = 0; i < kept.length; i++) {
            means[i] = sums.inputs()[kept[i]] / sums.positions();
        }
        for (int i = 0; i < kept.length; i++) {
            double sum = sums.inputs()[kept[i]];
            a.getRow(i, row);
            for (int j = 0; j < kept.length; j++) {
                row[j] -= sum * means[j];
            }
            a.setRow(i, row);
            c.getRow(i, row);
            for (int j = 0; j < c.columns(); j++) {
                row[j] -= means[i] * sums.errors()[j];
            }
            c.setRow(i, row);
        }
    }

    /** The mean error that the change leaves: ē - μᵀ change. */
    private static double[] bias(Matrix change, double[] means, Sums sums) {
        double[] result = new double[change.columns()];
        double[] row = new double[change.columns()];
        for (int j = 0; j < result.length; j++) {
            result[j] = sums.errors()[j] / sums.positions();
        }
        for (int i = 0; i < means.length; i++) {
            change.getRow(i, row);
            for (int j = 0; j < result.length; j++) {
                result[j] -= means[i] * row[j];
            }
        }
        return result;
    }

    /** Clears the rows of dead channels, which cannot compensate for anything. */
    private static void clearDead(Matrix a, int[] kept, Matrix right) {
        double[] zeros = new double[right.columns()];
        for (int i = 0; i < kept.length; i++) {
            if (a.get(kept[i], kept[i]) <= 0) {
                right.setRow(i, zeros);
            }
        }
    }

    private static void addRows(Matrix from, int[] rows, Matrix sum) {
        double[] left = new double[sum.columns()];
        double[] right = new double[sum.columns()];
        for (int i = 0; i < rows.length; i++) {
            from.getRow(rows[i], left);
            sum.getRow(i, right);
            for (int j = 0; j < right.length; j++) {
                right[j] += left[j];
            }
            sum.setRow(i, right);
        }
    }

    private static void scatter(Matrix rows, int[] positions, Matrix target) {
        double[] row = new double[rows.columns()];
        for (int i = 0; i < positions.length; i++) {
            rows.getRow(i, row);
            target.setRow(positions[i], row);
        }
    }
}
