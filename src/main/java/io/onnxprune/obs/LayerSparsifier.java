// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Cholesky;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.algebra.Place;
import java.util.Arrays;

/**
 * Unstructured and N:M sparsity within one linear layer's weights, whose shape does not change: SparseGPT (arXiv
 * 2301.00774) and Wanda (arXiv 2306.11695).
 */
public final class LayerSparsifier {
    /** Number of inputs that are scored together. */
    private static final int BLOCK = 128;

    private final Matrix a;
    private final Matrix w;
    private final Pattern pattern;
    private final int n;
    private final int out;

    private LayerSparsifier(Matrix a, Matrix w, Pattern pattern) {
        this.a = a;
        this.w = w;
        this.pattern = pattern;
        n = w.rows();
        out = w.columns();
    }

    /**
     * SparseGPT (arXiv 2301.00774). Inputs are processed in order. Elements of low score become zero, and the weights
     * of later inputs compensate. The score is {@code w²/d}, with d the input's diagonal element of the inverse second
     * moment of itself and all later inputs. Without groups, each block of 128 inputs gets the same sparsity, wherever
     * in the block the zeros lie.
     *
     * @param a second moment of the inputs {@code [n, n]}, symmetric
     * @param w weights {@code [n, out]}
     * @param pattern unstructured or grouped
     * @return the sparse weights {@code [n, out]}; the caller closes them
     * @throws io.onnxprune.diag.UserException when a value is not finite, the second moment cannot be inverted or
     *     {@code n} is not a multiple of the pattern's group size
     * @throws IllegalArgumentException when the pattern is structured
     */
    public static Matrix sparseGpt(Matrix a, Matrix w, Pattern pattern, Damping damping) {
        check(a, w, pattern, damping);
        double mean = Damping.meanDiagonal(a);
        try (Matrix u = damping.raise(a.rows(), share -> factorOfInverse(a, share * mean))) {
            Matrix result = u.place().move(w.copy());
            new LayerSparsifier(a, result, pattern).sparsify(u);
            return Place.HOST.move(result);
        }
    }

    /**
     * Wanda (arXiv 2306.11695). Within each output, elements of low {@code |w| ‖x‖} become zero; the others are not
     * changed.
     *
     * @param a second moment of the inputs {@code [n, n]}; only the diagonal is used
     * @param w weights {@code [n, out]}
     * @param pattern unstructured or grouped
     * @param damping names the layer in messages
     * @return the sparse weights {@code [n, out]}; the caller closes them
     * @throws io.onnxprune.diag.UserException when a value is not finite or {@code n} is not a multiple of the
     *     pattern's group size
     * @throws IllegalArgumentException when the pattern is structured
     */
    public static Matrix wanda(Matrix a, Matrix w, Pattern pattern, Damping damping) {
        check(a, w, pattern, damping);
        int n = w.rows();
        double[] row = new double[n];
        double[] scores = new double[n];
        boolean[] zero = new boolean[n];
        try (Matrix outputs = w.transposed()) {
            for (int output = 0; output < outputs.rows(); output++) {
                outputs.getRow(output, row);
                for (int i = 0; i < n; i++) {
                    scores[i] = row[i] * row[i] * Math.max(0, a.get(i, i));
                }
                mark(pattern, scores, zero);
                for (int i = 0; i < n; i++) {
                    row[i] = zero[i] ? 0 : row[i];
                }
                outputs.setRow(output, row);
            }
            return outputs.transposed();
        }
    }

    private static void check(Matrix a, Matrix w, Pattern pattern, Damping damping) {
        damping.checkFinite(a, "second moment of the inputs");
        damping.checkFinite(w, "weight");
        if (pattern instanceof Pattern.Grouped grouped) {
            grouped.check(damping.label(), w.rows());
        } else if (pattern instanceof Pattern.Structured) {
            throw new IllegalArgumentException("SparseGPT and Wanda prune single elements, not rows and columns");
        }
    }

    /** Marks the zeros among the inputs of one output. */
    private static void mark(Pattern pattern, double[] scores, boolean[] zero) {
        if (pattern instanceof Pattern.Unstructured unstructured) {
            markLowest(scores, 0, scores.length, (int) zeros(unstructured, scores.length), zero);
        } else if (pattern instanceof Pattern.Grouped grouped) {
            for (int i = 0; i < scores.length; i += grouped.of()) {
                markLowest(scores, i, i + grouped.of(), grouped.zeros(), zero);
            }
        }
    }

    /**
     * Upper triangular u with {@code (a+λI)⁻¹ = uᵀu}. Row i is the effect of eliminating input i on itself and later
     * inputs.
     */
    private static Matrix factorOfInverse(Matrix a, double lambda) {
        Matrix u = Damping.factored(a.copy(), lambda);
        Cholesky.invert(u);
        if (!Cholesky.factor(u)) {
            u.close();
            throw new SingularException();
        }
        return u;
    }

    private void sparsify(Matrix u) {
        int group = pattern instanceof Pattern.Grouped grouped ? grouped.of() : 1;
        int size = Math.max(BLOCK / group, 1) * group;
        for (int begin = 0; begin < n; begin += size) {
            int end = Math.min(n, begin + size);
            Matrix block = w.block(begin, 0, end - begin, out);
            try (Matrix weights = Place.HOST.borrow(block);
                    Matrix effects = Place.HOST.borrow(u.block(begin, begin, end - begin, end - begin));
                    Matrix errors = Matrix.zeros(end - begin, out)) {
                sparsifyBlock(begin, weights, effects, errors);
                if (!w.place().isHost()) {
                    block.assign(weights);
                }
                try (Matrix moved = w.place().borrow(errors)) {
                    Matrix later = w.block(end, 0, n - end, out);
                    Blas.multiply(-1, u.block(begin, end, end - begin, n - end), true, moved, false, 1, later);
                }
            }
        }
    }

    /**
     * Prunes elements in one block of inputs and updates the later inputs of the block.
     *
     * @param begin the block's first input
     * @param weights the block's rows of w, on the host
     * @param u the block's rows and columns of u, on the host
     * @param errors {@code [end - begin, out]}; receives the scaled errors by which inputs after the block have to
     *     change
     */
    private void sparsifyBlock(int begin, Matrix weights, Matrix u, Matrix errors) {
        int size = weights.rows();
        boolean[] zero = new boolean[size * out];
        if (pattern instanceof Pattern.Unstructured unstructured) {
            long count = zeros(unstructured, (long) (begin + size) * out) - zeros(unstructured, (long) begin * out);
            markLowest(scores(begin, 0, size, weights, u), 0, zero.length, (int) count, zero);
        }
        double[] row = new double[out];
        double[] error = new double[out];
        for (int i = 0; i < size; i++) {
            if (pattern instanceof Pattern.Grouped grouped && i % grouped.of() == 0) {
                markGroups(scores(begin, i, i + grouped.of(), weights, u), grouped, i, zero);
            }
            weights.getRow(i, row);
            double pivot = u.get(i, i);
            for (int j = 0; j < out; j++) {
                boolean removed = zero[i * out + j];
                error[j] = removed ? row[j] / pivot : 0;
                row[j] = removed ? 0 : row[j];
            }
            weights.setRow(i, row);
            errors.setRow(i, error);
            Matrix later = weights.block(i + 1, 0, size - i - 1, out);
            Matrix current = errors.block(i, 0, 1, out);
            Blas.multiply(-1, u.block(i, i + 1, 1, size - i - 1), true, current, false, 1, later);
        }
    }

    /** Marks the elements to prune in the group of inputs that begins at row {@code i} of the block. */
    private void markGroups(double[] groupScores, Pattern.Grouped grouped, int i, boolean[] zero) {
        double[] scores = new double[grouped.of()];
        boolean[] chosen = new boolean[grouped.of()];
        for (int j = 0; j < out; j++) {
            for (int t = 0; t < scores.length; t++) {
                scores[t] = groupScores[t * out + j];
            }
            markLowest(scores, 0, scores.length, grouped.zeros(), chosen);
            for (int t = 0; t < scores.length; t++) {
                zero[(i + t) * out + j] = chosen[t];
            }
        }
    }

    /**
     * Scores w²/d of the current weights in some rows of a block, input by input; 0 for dead inputs.
     *
     * @param begin the block's first input
     */
    private double[] scores(int begin, int from, int to, Matrix weights, Matrix u) {
        double[] scores = new double[(to - from) * out];
        double[] row = new double[out];
        for (int i = from; i < to; i++) {
            double factor = a.get(begin + i, begin + i) > 0 ? 1 / (u.get(i, i) * u.get(i, i)) : 0;
            weights.getRow(i, row);
            for (int j = 0; j < out; j++) {
                scores[(i - from) * out + j] = row[j] * row[j] * factor;
            }
        }
        return scores;
    }

    /** Number of zeros among the first {@code elements} elements. */
    private static long zeros(Pattern.Unstructured pattern, long elements) {
        return Math.round(pattern.share() * elements);
    }

    /**
     * Sets {@code marks} from {@code begin} to {@code end}: true for the lowest {@code count} scores. Of equal scores
     * the first are marked.
     */
    private static void markLowest(double[] scores, int begin, int end, int count, boolean[] marks) {
        Arrays.fill(marks, begin, end, false);
        if (count == 0) {
            return;
        }
        double[] sorted = Arrays.copyOfRange(scores, begin, end);
        Arrays.sort(sorted);
        double last = sorted[count - 1];
        int equal = count;
        for (double score : sorted) {
            if (score >= last) {
                break;
            }
            equal--;
        }
        for (int i = begin; i < end; i++) {
            if (scores[i] < last) {
                marks[i] = true;
            } else if (scores[i] == last && equal > 0) {
                marks[i] = true;
                equal--;
            }
        }
    }
}
