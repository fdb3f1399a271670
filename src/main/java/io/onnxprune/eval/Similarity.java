// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.Session.Io;
import java.util.List;

/**
 * How alike the outputs of two models are on the same rows. It stands for perplexity where there is no language loss:
 * for encoders, and for embeddings of unknown tokens.
 *
 * @param pooled mean over rows of the cosine between the means over positions, as sentence embeddings are compared
 * @param cosine mean over all positions of the cosine
 * @param error squared error relative to the squared outputs of the first model
 * @param rows number of rows
 */
public record Similarity(double pooled, double cosine, double error, long rows) {
    /**
     * Runs both models.
     *
     * @param rows token ids, any lengths
     * @throws UserException when a model does not run, or the outputs differ in shape
     */
    public static Similarity measure(CausalLm dense, CausalLm pruned, List<long[]> rows, Log log) {
        Sums sums = new Sums();
        try (Log.Progress progress = log.progress("similarity", rows.size())) {
            for (long[] row : rows) {
                sums.add(end(dense, row), end(pruned, row));
                progress.step(1);
            }
        }
        return new Similarity(
                sums.pooled / rows.size(), sums.cosine / sums.positions, sums.error / sums.squares, rows.size());
    }

    private static HostTensor end(CausalLm model, long[] row) {
        Io end = model.graph().end();
        return model.results(new long[][] {row}).get(model.graph().results().indexOf(end));
    }

    /** Sums over rows. */
    private static final class Sums {
        private double pooled;
        private double cosine;
        private double error;
        private double squares;
        private long positions;

        void add(HostTensor expected, HostTensor found) {
            float[] first = expected.toFloats();
            float[] second = found.toFloats();
            if (first.length != second.length) {
                throw new UserException("the outputs of the models have %d and %d elements, so they cannot be compared"
                        .formatted(first.length, second.length));
            }
            long[] shape = expected.shape();
            int width = (int) shape[shape.length - 1];
            double[] mean = new double[width];
            double[] otherMean = new double[width];
            for (int start = 0; start < first.length; start += width) {
                double product = 0;
                double norm = 0;
                double otherNorm = 0;
                for (int i = 0; i < width; i++) {
                    double x = first[start + i];
                    double y = second[start + i];
                    product += x * y;
                    norm += x * x;
                    otherNorm += y * y;
                    error += (x - y) * (x - y);
                    mean[i] += x;
                    otherMean[i] += y;
                }
                squares += norm;
                cosine += cosine(product, norm, otherNorm);
                positions++;
            }
            double product = 0;
            double norm = 0;
            double otherNorm = 0;
            for (int i = 0; i < width; i++) {
                product += mean[i] * otherMean[i];
                norm += mean[i] * mean[i];
                otherNorm += otherMean[i] * otherMean[i];
            }
            pooled += cosine(product, norm, otherNorm);
        }

        private static double cosine(double product, double norm, double otherNorm) {
            return norm == 0 && otherNorm == 0 ? 1 : product / Math.max(Double.MIN_NORMAL, Math.sqrt(norm * otherNorm));
        }
    }
}
