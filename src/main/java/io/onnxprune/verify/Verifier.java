// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.verify;

import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Structure;
import io.onnxprune.eval.CausalLm;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.Widening;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.plan.Plan;
import io.onnxprune.rewrite.MaskedModel;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.LastPosition;
import io.onnxprune.runtime.ModelInterface;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.Session;
import java.nio.FloatBuffer;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.OptionalDouble;
import java.util.Random;

/**
 * Verifies a pruned model: compares the emitted file with the full-size model whose pruned units are zero, on ONNX
 * Runtime without graph optimisations. It compares the logits of a prefill and of one cached decode step.
 * Half-precision models run in float32, so that rounding does not hide errors.
 */
public final class Verifier {
    private static final int BATCH = 2;
    private static final int LENGTH = 7;
    private static final int RETRIES = 3;

    /**
     * The result of a comparison.
     *
     * @param maxAbsDiff largest absolute difference of a prefill logit
     * @param decodeMaxAbsDiff largest absolute difference of a logit of the decode step; empty without a cache
     * @param scale largest magnitude of a logit
     * @param tokens number of compared positions
     */
    public record Verification(double maxAbsDiff, OptionalDouble decodeMaxAbsDiff, double scale, long tokens) {
        /** The larger of the two differences, relative to the logits' scale. */
        public double relative() {
            return Math.max(maxAbsDiff, decodeMaxAbsDiff.orElse(0)) / Math.max(scale, Double.MIN_NORMAL);
        }
    }

    @SuppressWarnings("ArrayRecordComponent") // plain data, never compared
    private record Results(float[] prefill, float[] decode, long tokens) {}

    private Verifier() {}

    /**
     * The dense model in which everything that was pruned is zero.
     *
     * @param structure of the dense model
     * @param updates new full-size contents of constants, as given to the slicer
     * @param lastLogits whether only logits of the last position are compared
     */
    public record Masked(Structure structure, Plan plan, Map<Value, Tensor> updates, boolean lastLogits) {
        /** Compares all logits. */
        public Masked(Structure structure, Plan plan, Map<Value, Tensor> updates) {
            this(structure, plan, updates, false);
        }

        private Model model() {
            Model model = MaskedModel.of(structure, plan, updates);
            return lastLogits ? LastPosition.added(model) : model;
        }
    }

    /**
     * Compares {@code emitted} with a masked model.
     *
     * @param tolerance largest difference that agrees, relative to the logits' scale; where activations are rounded to
     *     few steps, a difference above it is looked at again with other tokens, since one activation on the border of
     *     two steps may fall to either side
     * @throws UserException if either does not run
     */
    public static Verification compare(Masked masked, Path emitted, OnnxRuntime runtime, double tolerance, long seed) {
        Verification found = compareOnce(masked, emitted, runtime, seed);
        boolean quantises = masked.structure.analysis().program().ops().stream()
                .anyMatch(op -> op.node().op().startsWith("DynamicQuantize"));
        for (int again = 1; quantises && again <= RETRIES && !(found.relative() <= tolerance); again++) {
            found = compareOnce(masked, emitted, runtime, seed + again);
        }
        return found;
    }

    private static Verification compareOnce(Masked masked, Path emitted, OnnxRuntime runtime, long seed) {
        Results expected = run(masked.model(), runtime, seed);
        // Weights of the first model are mapped until collected: without this, both would count at once.
        System.gc();
        Results found = run(ModelReader.read(emitted), runtime, seed);
        double scale = 0;
        for (float value : expected.prefill) {
            scale = Math.max(scale, Math.abs(value));
        }
        OptionalDouble decode = expected.decode == null || found.decode == null
                ? OptionalDouble.empty()
                : OptionalDouble.of(difference(expected.decode, found.decode));
        return new Verification(difference(expected.prefill, found.prefill), decode, scale, expected.tokens);
    }

    private static double difference(float[] expected, float[] found) {
        if (expected.length != found.length) {
            throw new UserException("verification failed: the pruned model gives " + found.length
                    + " logits, the original gives " + expected.length);
        }
        double largest = 0;
        for (int i = 0; i < expected.length; i++) {
            double difference = Math.abs((double) expected[i] - found[i]);
            // NaN in both models is agreement; NaN in one is not.
            if (Double.isNaN(difference) && Float.isNaN(expected[i]) != Float.isNaN(found[i])) {
                return Double.POSITIVE_INFINITY;
            }
            largest = Math.max(largest, Double.isNaN(difference) ? 0 : difference);
        }
        return largest;
    }

    private static Results run(Model model, OnnxRuntime runtime, long seed) {
        try (Session session = runtime.open(Widening.widen(model), false)) {
            CausalLm decoder = CausalLm.of(session, model.graph());
            ModelInterface graph = decoder.graph();
            long vocabulary = graph.vocabulary().orElseGet(() -> graph.logits().isPresent() ? decoder.vocabulary() : 1);
            Random random = new Random(seed);
            int length = graph.fixedLength().orElse(LENGTH);
            long[][] tokens = tokens(random, graph.fixedBatch().orElse(BATCH), length, vocabulary);
            float[] prefill = joined(decoder.results(tokens));
            if (!decoder.hasCache()) {
                return new Results(prefill, null, (long) tokens.length * length);
            }
            long[][] row = Arrays.copyOf(tokens, graph.fixedBatch().orElse(1));
            long[][] next = tokens(random, row.length, graph.fixedLength().orElse(1), vocabulary);
            try (CausalLm.Step step = decoder.decode(decoder.prefill(row), next)) {
                return new Results(prefill, joined(step.results()), (long) tokens.length * length);
            }
        }
    }

    private static float[] joined(List<HostTensor> results) {
        int size = results.stream().mapToInt(result -> (int) result.elements()).sum();
        FloatBuffer joined = FloatBuffer.allocate(size);
        results.forEach(result -> joined.put(result.toFloats()));
        return joined.array();
    }

    private static long[][] tokens(Random random, int batch, int length, long vocabulary) {
        long[][] tokens = new long[batch][length];
        for (long[] row : tokens) {
            for (int i = 0; i < length; i++) {
                row[i] = random.nextInt((int) Math.min(vocabulary, Integer.MAX_VALUE));
            }
        }
        return tokens;
    }
}
