// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Cholesky;
import io.onnxprune.algebra.Matrix;
import java.util.Arrays;

/** Zeros within the weights of a layer, whose shape stays: SparseGPT (arXiv 2301.00774) and Wanda (arXiv 2306.11695). */
public final class LayerSparsifier {
    /** Inputs that are scored together. */
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
     * SparseGPT: input after input, elements of low score become zero, and the weights of later inputs make up for them. The
     * score is {@code w²/d} with d the input's diagonal element of the inverse over itself and the inputs after it. Without
     * groups, each block of 128 inputs has the same share of zeros, however they lie among its inputs and outputs.
     *
     * @param a second moment of the inputs {@code [n, n]}, symmetric
     * @param w weights {@code [n, out]}
     * @return {@code [n, out]}; the caller closes it
     * @throws io.onnxprune.diag.UserException when a number is not finite, the second moment cannot be inverted or {@code n} is no multiple of
     *     the pattern's groups
     */
    public static Matrix sparseGpt(Matrix a, Matrix w, Pattern pattern, Damping damping) {
        check(a, w, pattern, damping);
        double mean = Damping.meanDiagonal(a);
        try (Matrix u = damping.raise(a.rows(), share -> factorOfInverse(a, share * mean))) {
            Matrix result = w.copy();
            new LayerSparsifier(a, result, pattern).run(u);
            return result;
        }
    }

    /**
     * Wanda: for each output by itself, elements of low {@code |w| ‖x‖} become zero; the others stay as they are.
     *
     * @param a second moment of the inputs {@code [n, n]}, of which the diagonal counts
     * @param w weights {@code [n, out]}
     * @return {@code [n, out]}; the caller closes it
     * @throws io.onnxprune.diag.UserException when a number is not finite or {@code n} is no multiple of the pattern's groups
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
            throw new IllegalArgumentException("a sweep goes element by element");
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

    /** Upper u with {@code (a+λI)⁻¹ = uᵀu}: row i is what eliminating input i does to itself and the inputs after it. */
    private static Matrix factorOfInverse(Matrix a, double lambda) {
        Matrix u = Damping.factored(a.copy(), lambda);
        Cholesky.invert(u);
        if (!Cholesky.factor(u)) {
            u.close();
            throw new SingularException();
        }
        return u;
    }

    private void run(Matrix u) {
        int group = pattern instanceof Pattern.Grouped grouped ? grouped.of() : 1;
        int size = Math.max(BLOCK / group, 1) * group;
        for (int begin = 0; begin < n; begin += size) {
            int end = Math.min(n, begin + size);
            try (Matrix errors = Matrix.zeros(end - begin, out)) {
                sweep(begin, end, u, errors);
                Matrix later = w.block(end, 0, n - end, out);
                Blas.multiply(-1, u.block(begin, end, end - begin, n - end), true, errors, false, 1, later);
            }
        }
    }

    /** Zeros in a block of inputs; the errors by which later inputs have to change are kept for all of them together. */
    private void sweep(int begin, int end, Matrix u, Matrix errors) {
        boolean[] zero = new boolean[(end - begin) * out];
        if (pattern instanceof Pattern.Unstructured unstructured) {
            long count = zeros(unstructured, (long) end * out) - zeros(unstructured, (long) begin * out);
            markLowest(scores(begin, end, u), 0, zero.length, (int) count, zero);
        }
        double[] row = new double[out];
        double[] error = new double[out];
        for (int i = begin; i < end; i++) {
            if (pattern instanceof Pattern.Grouped grouped && (i - begin) % grouped.of() == 0) {
                markGroups(i, begin, u, grouped, zero);
            }
            w.getRow(i, row);
            double pivot = u.get(i, i);
            for (int j = 0; j < out; j++) {
                boolean removed = zero[(i - begin) * out + j];
                error[j] = removed ? row[j] / pivot : 0;
                row[j] = removed ? 0 : row[j];
            }
            w.setRow(i, row);
            errors.setRow(i - begin, error);
            Matrix rest = w.block(i + 1, 0, end - i - 1, out);
            Matrix here = errors.block(i - begin, 0, 1, out);
            Blas.multiply(-1, u.block(i, i + 1, 1, end - i - 1), true, here, false, 1, rest);
        }
    }

    /** Marks elements of the group of inputs that begins at {@code i}, by the weights as they are now. */
    private void markGroups(int i, int begin, Matrix u, Pattern.Grouped grouped, boolean[] zero) {
        double[] whole = scores(i, i + grouped.of(), u);
        double[] scores = new double[grouped.of()];
        boolean[] chosen = new boolean[grouped.of()];
        for (int j = 0; j < out; j++) {
            for (int t = 0; t < scores.length; t++) {
                scores[t] = whole[t * out + j];
            }
            markLowest(scores, 0, scores.length, grouped.zeros(), chosen);
            for (int t = 0; t < scores.length; t++) {
                zero[(i - begin + t) * out + j] = chosen[t];
            }
        }
    }

    /** w²/d of all elements of some inputs, input by input; 0 for inputs that never carried anything. */
    private double[] scores(int begin, int end, Matrix u) {
        double[] scores = new double[(end - begin) * out];
        double[] row = new double[out];
        for (int i = begin; i < end; i++) {
            double factor = a.get(i, i) > 0 ? 1 / (u.get(i, i) * u.get(i, i)) : 0;
            w.getRow(i, row);
            for (int j = 0; j < out; j++) {
                scores[(i - begin) * out + j] = row[j] * row[j] * factor;
            }
        }
        return scores;
    }

    /** How many of the first {@code elements} become zero. */
    private static long zeros(Pattern.Unstructured pattern, long elements) {
        return Math.round(pattern.share() * elements);
    }

    /** Sets {@code marks} from {@code begin} to {@code end}: the lowest {@code count} scores, of equal ones the first. */
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
