// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.verify;

import io.onnxprune.diag.UserException;
import io.onnxprune.eval.CausalLm;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Widening;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.ModelInterface;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.Session;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;

/**
 * Verifies a model that lost tokens: on rows of kept tokens, its results are those of the original, with the columns of the
 * kept tokens only. It compares a prefill and one cached decode step, on ONNX Runtime without graph optimisations and in
 * float32.
 */
public final class ColumnVerifier {
    private static final int BATCH = 2;
    private static final int LENGTH = 7;

    /**
     * The result of a comparison.
     *
     * @param maxAbsDiff largest absolute difference
     * @param scale largest magnitude of a result
     */
    public record Comparison(double maxAbsDiff, double scale) {
        /** The difference relative to the scale. */
        public double relative() {
            return maxAbsDiff / Math.max(scale, Double.MIN_NORMAL);
        }
    }

    private final int[] kept;
    private final OnnxRuntime runtime;
    private final long seed;

    /**
     * Prepares a comparison.
     *
     * @param kept old ids of the kept tokens, by their new ids
     */
    public ColumnVerifier(int[] kept, OnnxRuntime runtime, long seed) {
        this.kept = kept.clone();
        this.runtime = runtime;
        this.seed = seed;
    }

    /**
     * Compares a model with the file of the reduced one.
     *
     * @throws UserException if either does not run, or the results have other shapes
     */
    public Comparison compare(Model original, Path reduced) {
        List<HostTensor> expected = run(original, false);
        System.gc();
        List<HostTensor> found = run(ModelReader.read(reduced), true);
        double largest = 0;
        double scale = 0;
        for (int i = 0; i < expected.size(); i++) {
            float[] all = columns(expected.get(i), found.get(i));
            float[] some = found.get(i).toFloats();
            for (int j = 0; j < all.length; j++) {
                boolean same = Float.isNaN(all[j]) && Float.isNaN(some[j]);
                double difference = same ? 0 : Math.abs((double) all[j] - some[j]);
                largest = Double.isNaN(difference) ? Double.POSITIVE_INFINITY : Math.max(largest, difference);
                scale = Math.max(scale, Math.abs(all[j]));
            }
        }
        return new Comparison(largest, scale);
    }

    /** The results for rows of kept tokens, in the ids of either model. */
    private List<HostTensor> run(Model model, boolean renumbered) {
        try (Session session = runtime.open(Widening.widen(model), false)) {
            CausalLm decoder = CausalLm.of(session, model.graph());
            ModelInterface graph = decoder.graph();
            Random random = new Random(seed);
            int length = graph.fixedLength().orElse(LENGTH);
            long[][] rows = rows(random, graph.fixedBatch().orElse(BATCH), length, renumbered);
            List<HostTensor> results = new ArrayList<>(decoder.results(rows));
            if (decoder.hasCache()) {
                long[][] row = Arrays.copyOf(rows, graph.fixedBatch().orElse(1));
                long[][] next = rows(random, row.length, graph.fixedLength().orElse(1), renumbered);
                try (CausalLm.Step step = decoder.decode(decoder.prefill(row), next)) {
                    results.addAll(step.results());
                }
            }
            return results;
        }
    }

    private long[][] rows(Random random, int batch, int length, boolean renumbered) {
        long[][] rows = new long[batch][length];
        for (long[] row : rows) {
            for (int i = 0; i < length; i++) {
                int id = random.nextInt(kept.length);
                row[i] = renumbered ? id : kept[id];
            }
        }
        return rows;
    }

    /** The values of the original at the kept tokens, or all of them where the last axis is not that of the tokens. */
    private float[] columns(HostTensor all, HostTensor some) {
        float[] values = all.toFloats();
        if (Arrays.equals(all.shape(), some.shape())) {
            return values;
        }
        int before = (int) all.shape()[all.shape().length - 1];
        int after = (int) some.shape()[some.shape().length - 1];
        int count = values.length / before;
        if (some.elements() != (long) count * after || after > kept.length) {
            throw new UserException("verification failed: the model with fewer tokens gives results of shape "
                    + Arrays.toString(some.shape()) + ", the original " + Arrays.toString(all.shape()));
        }
        float[] columns = new float[count * after];
        for (int row = 0; row < count; row++) {
            for (int column = 0; column < after; column++) {
                columns[row * after + column] = values[row * before + kept[column]];
            }
        }
        return columns;
    }
}
