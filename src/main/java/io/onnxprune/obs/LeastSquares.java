// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Cholesky;
import io.onnxprune.algebra.Matrix;
import java.util.BitSet;
import java.util.List;
import java.util.stream.IntStream;

/** The weights that remain when inputs of a layer are removed, as solutions of least-squares problems. */
public final class LeastSquares {
    /**
     * Sums over the same positions as a second moment, for a fit with a bias.
     *
     * @param inputs Σ x, {@code [n]}
     * @param errors Σ e, {@code [out]}
     * @param positions how many positions were summed over
     */
    @SuppressWarnings("ArrayRecordComponent") // a holder, never compared
    public record Sums(double[] inputs, double[] errors, long positions) {}

    /**
     * What is to be added to a layer.
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
     * The weights on the kept inputs that come nearest to the whole layer, by ½ tr(Δwᵀ (a+λI) Δw): what {@link GreedyRemoval}
     * leaves behind, whatever the order was and whatever {@code g} was.
     *
     * @param a second moment of the inputs {@code [n, n]}, symmetric
     * @param w weights {@code [n, out]}
     * @param kept the channels that stay, ascending
     * @param damping λ as a share of the mean diagonal of {@code a}: {@link RemovalOrder#damping()} for the same solution
     * @return {@code [n, out]}, zero outside the kept rows; the caller closes it
     * @throws io.onnxprune.diag.UserException when a number is not finite or the second moment cannot be inverted
     */
    public static Matrix keep(Matrix a, Matrix w, int[] kept, Damping damping) {
        damping.checkFinite(a, "second moment of the inputs");
        damping.checkFinite(w, "weight");
        BitSet stays = new BitSet(a.rows());
        IntStream.of(kept).forEach(stays::set);
        int[] gone = IntStream.range(0, a.rows()).filter(i -> !stays.get(i)).toArray();
        double mean = Damping.meanDiagonal(a);
        Matrix result = Matrix.zeros(a.rows(), w.columns());
        try (Matrix factor = damping.raise(kept.length, share -> Damping.factored(a.select(kept, kept), share * mean));
                Matrix remaining = remaining(a, w, kept, gone, factor)) {
            scatter(remaining, kept, result);
        }
        return result;
    }

    /**
     * The same for inputs and outputs together: the weights on the kept inputs and outputs that come nearest to the whole
     * layer by ½ tr(Δwᵀ (a+λI) Δw (g+γI)), which is {@code (a+λ)_KK⁻¹ (a+λ)_K: w (g+γ)_:L (g+γ)_LL⁻¹} (for the LLM Surgeon,
     * arXiv 2312.17244, whose code adds the updates for rows and columns instead): first the inputs are removed and then the outputs of what that left.
     *
     * @param g second moment of the gradients of the outputs {@code [out, out]}, symmetric
     * @param keptOutputs the outputs that stay, ascending
     * @param outputDamping γ as a share of the mean diagonal of {@code g}
     * @return {@code [n, out]}, zero outside the kept rows and columns; the caller closes it
     */
    public static Matrix keep(
            Matrix a, Matrix g, Matrix w, int[] kept, int[] keptOutputs, Damping damping, Damping outputDamping) {
        try (Matrix withoutInputs = keep(a, w, kept, damping);
                Matrix turned = withoutInputs.transposed();
                Matrix withoutOutputs = keep(g, turned, keptOutputs, outputDamping)) {
            return withoutOutputs.transposed();
        }
    }

    /**
     * The sum of the changes that would be best for each unit if it alone went, {@code -p_:B p_BB⁻¹ w_B} with
     * {@code p = (a+λI)⁻¹}: what the LLM Surgeon (section 4.3 of its paper) calls independent updates.
     *
     * @param gone the channels of each unit that goes
     * @return {@code [n, out]}, zero in rows of units that go; the caller closes it
     * @throws io.onnxprune.diag.UserException when a number is not finite or the second moment cannot be inverted
     */
    public static Matrix separately(Matrix a, Matrix w, List<int[]> gone, Damping damping) {
        damping.checkFinite(a, "second moment of the inputs");
        damping.checkFinite(w, "weight");
        double mean = Damping.meanDiagonal(a);
        int[] all = IntStream.range(0, a.rows()).toArray();
        Matrix result = w.copy();
        try (Matrix p = damping.raise(a.rows(), share -> Damping.factored(a.copy(), share * mean))) {
            Cholesky.invert(p);
            Blas.mirror(p);
            for (int[] unit : gone) {
                try (Matrix factor = p.select(unit, unit);
                        Matrix lost = w.selectRows(unit);
                        Matrix across = p.select(all, unit)) {
                    if (!Cholesky.factor(factor)) {
                        throw new IllegalStateException("a part of a positive definite matrix is not");
                    }
                    Cholesky.solve(factor, lost);
                    Blas.multiply(-1, across, false, lost, false, 1, result);
                }
            }
        }
        double[] zeros = new double[w.columns()];
        gone.forEach(unit -> IntStream.of(unit).forEach(channel -> result.setRow(channel, zeros)));
        return result;
    }

    /**
     * The best weights {@code [kept, out]} without those that are gone, as
     * {@code (a+λ)_KK⁻¹ (a+λ)_K: w = w_K + (a+λ)_KK⁻¹ a_KR w_R}.
     *
     * @param factor of {@code (a+λ)_KK}
     */
    static Matrix remaining(Matrix a, Matrix w, int[] kept, int[] gone, Matrix factor) {
        if (gone.length == 0) {
            return w.selectRows(kept);
        }
        int[] lost = IntStream.of(gone).filter(i -> a.get(i, i) > 0).toArray();
        try (Matrix across = a.select(kept, lost);
                Matrix lostWeights = w.selectRows(lost)) {
            Matrix result = Blas.product(across, lostWeights);
            clearDead(a, kept, result);
            Cholesky.solve(factor, result);
            addRows(w, kept, result);
            return result;
        }
    }

    /**
     * What is to be added to the weights of the kept inputs so that the layer makes up for an error {@code e}: the ridge
     * regression of {@code e} on {@code x}.
     *
     * @param a second moment of the inputs as they are now, Σ xᵀx, {@code [n, n]}, symmetric
     * @param c Σ xᵀe, {@code [n, out]}
     * @param kept the channels that may change, ascending
     * @param sums for a bias too; null for none
     * @param ridge its share is of the mean diagonal over the kept channels
     * @return the caller closes it
     * @throws io.onnxprune.diag.UserException when a number is not finite or the second moment cannot be inverted
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

    /** Second moments about the means: {@code a - N μμᵀ} and {@code c - N μēᵀ}. */
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

    /** What is left of the mean error after the change: ē - μᵀ change. */
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

    /** A channel that never carried anything has nothing to make up for others with. */
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

    private static void scatter(Matrix rows, int[] places, Matrix target) {
        double[] row = new double[rows.columns()];
        for (int i = 0; i < places.length; i++) {
            rows.getRow(i, row);
            target.setRow(places[i], row);
        }
    }
}
