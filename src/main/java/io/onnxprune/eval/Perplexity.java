// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.runtime.HostTensor;
import java.nio.FloatBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.IntStream;

/**
 * The perplexity of a model on data.
 *
 * @param perplexity exp of {@code nll}
 * @param nll mean negative log-likelihood of the next token, in nats
 * @param tokens number of predicted tokens: all except the first of each row
 */
public record Perplexity(double perplexity, double nll, long tokens) {
    /** Maximal size of a batch's logits in bytes. */
    private static final long LOGITS_BYTES = 64L << 20;

    /** Maximal number of tokens in a batch. Larger batches are not faster, and attention takes more memory. */
    private static final long BATCH_TOKENS = 1024;

    /**
     * Measures the perplexity on complete rows.
     *
     * @param rows token ids, rows of at least two; rows of equal length are run together
     * @param log receives the progress
     * @throws UserException when the model cannot run on the rows or its logits are not finite
     */
    public static Perplexity measure(CausalLm model, List<long[]> rows, Log log) {
        return ofExamples(model, rows.stream().map(Example::whole).toList(), log);
    }

    /**
     * Measures the perplexity on the predictions that count.
     *
     * @param rows examples; rows of equal length are run together
     * @param log receives the progress
     * @throws UserException when the model cannot run on the rows or its logits are not finite
     */
    public static Perplexity ofExamples(CausalLm model, List<Example> rows, Log log) {
        double sum = Arrays.stream(ofRows(model, rows, "perplexity", log)).sum();
        long count = rows.stream().mapToLong(Example::predictions).sum();
        double nll = sum / count;
        return new Perplexity(Math.exp(nll), nll, count);
    }

    /**
     * Negative log-likelihoods of rows, in nats: the sum over the predictions of each row that count.
     *
     * @param rows examples; rows of equal length are run together
     * @param stage name of the work, for the progress
     * @throws UserException when the model cannot run on the rows or its logits are not finite
     */
    static double[] ofRows(CausalLm model, List<Example> rows, String stage, Log log) {
        Map<Integer, List<Integer>> byLength = new TreeMap<>();
        for (int i = 0; i < rows.size(); i++) {
            byLength.computeIfAbsent(rows.get(i).tokens().length, length -> new ArrayList<>())
                    .add(i);
        }
        double[] found = new double[rows.size()];
        try (Log.Progress progress = log.progress(stage, rows.size())) {
            for (Map.Entry<Integer, List<Integer>> group : byLength.entrySet()) {
                int size = batchSize(group.getKey(), model.vocabulary());
                List<Integer> same = group.getValue();
                for (int start = 0; start < same.size(); start += size) {
                    List<Integer> indices = same.subList(start, Math.min(start + size, same.size()));
                    List<Example> batch = indices.stream().map(rows::get).toList();
                    double[] nll = nll(model, batch);
                    if (!Double.isFinite(Arrays.stream(nll).sum())) {
                        throw notFinite(model, batch, rows);
                    }
                    for (int i = 0; i < nll.length; i++) {
                        found[indices.get(i)] = nll[i];
                    }
                    progress.step(batch.size());
                }
            }
        }
        return found;
    }

    private static UserException notFinite(CausalLm model, List<Example> batch, List<Example> rows) {
        for (Example row : batch) {
            if (batch.size() == 1 || !Double.isFinite(nll(model, List.of(row))[0])) {
                return new UserException(
                        "the model's logits are not finite numbers on row %d of %d to measure perplexity on (%s)%s"
                                .formatted(
                                        rows.indexOf(row) + 1,
                                        rows.size(),
                                        NonFinite.beginning(row.tokens()),
                                        model.whereNotFinite(row.tokens())));
            }
        }
        return new UserException(
                "the model's logits are not finite numbers on %d rows that are run together; its weights or its precision overflow, so try it in float32"
                        .formatted(batch.size()));
    }

    private static int batchSize(int length, long vocabulary) {
        long byMemory = LOGITS_BYTES / (length * vocabulary * Float.BYTES);
        return (int) Math.max(1, Math.min(byMemory, BATCH_TOKENS / length));
    }

    /** Negative log-likelihoods of rows of equal length. */
    private static double[] nll(CausalLm model, List<Example> batch) {
        HostTensor logits = model.logits(batch.stream().map(Example::tokens).toArray(long[][]::new));
        FloatBuffer values = logits.asFloats();
        int vocabulary = (int) logits.shape()[2];
        int length = batch.get(0).tokens().length;
        int predictions = length - 1;
        double[] nll = new double[batch.size() * predictions];
        // Positions are computed independently and summed in order, so the result does not depend on the number of
        // cores.
        IntStream.range(0, nll.length).parallel().forEach(i -> {
            Example row = batch.get(i / predictions);
            int position = i % predictions;
            int offset = (i / predictions * length + position) * vocabulary;
            int next = position + 1;
            nll[i] = next < row.first() ? 0 : nll(values, offset, vocabulary, (int) row.tokens()[next]);
        });
        return IntStream.range(0, batch.size())
                .mapToDouble(row -> Arrays.stream(nll, row * predictions, (row + 1) * predictions)
                        .sum())
                .toArray();
    }

    /** {@code logsumexp(x) - x[target]} over the {@code size} logits from {@code offset}. */
    static double nll(FloatBuffer logits, int offset, int size, int target) {
        float[] x = new float[size];
        logits.get(offset, x);
        float max = Float.NEGATIVE_INFINITY;
        for (float value : x) {
            max = Math.max(max, value);
        }
        double sum = 0;
        for (float value : x) {
            sum += Math.exp(value - max);
        }
        return Math.log(sum) + max - x[target];
    }
}
