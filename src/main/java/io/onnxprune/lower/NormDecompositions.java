// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** Normalisations by the root mean square, and normalisations fused with the residual addition or the embedding. */
final class NormDecompositions {
    private NormDecompositions() {}

    static void register(Decompositions.Table table) {
        table.onnx(NormDecompositions::rootMeanSquare, "SimplifiedLayerNormalization", "RMSNormalization");
        table.contrib(NormDecompositions::rootMeanSquare, "SimplifiedLayerNormalization");
        table.contrib(NormDecompositions::skipRootMeanSquare, "SkipSimplifiedLayerNormalization");
        table.contrib(NormDecompositions::skipLayer, "SkipLayerNormalization");
        table.contrib(NormDecompositions::embedding, "EmbedLayerNormalization");
    }

    /**
     * RMSNormalization of opset 23 and ONNX Runtime's SimplifiedLayerNormalization: x · r · w over the axes from
     * {@code axis} on, with r = 1 / √(mean(x²) + epsilon), which is the second result.
     */
    private static boolean rootMeanSquare(RewriteContext s) {
        int rank = s.rank(0);
        int axis = Math.floorMod((int) s.node().intAttribute("axis", -1), rank);
        long[] axes = axis == rank - 1 ? new long[] {-1} : RewriteContext.axes(axis, rank);
        String inverse = inverse(s, s.in(0), s.node().floatAttribute("epsilon", 1e-5f), axes);
        s.result(0, weighted(s, s.in(0), inverse, s.in(1)));
        s.result(1, inverse);
        return true;
    }

    /** x · r · w over the last axis, with r = 1 / √(mean(x²) + epsilon). */
    static String rootMeanSquare(RewriteContext s, String x, String weight, float epsilon) {
        return weighted(s, x, inverse(s, x, epsilon, -1), weight);
    }

    private static String inverse(RewriteContext s, String x, float epsilon, long... axes) {
        // Multiplying by a small reciprocal is cheaper to differentiate than dividing the whole tensor.
        String mean = s.reduce("ReduceMean", s.add("Mul", x, x), axes);
        return s.add("Reciprocal", s.add("Sqrt", s.add("Add", mean, s.scalar(epsilon))));
    }

    private static String weighted(RewriteContext s, String x, String inverse, String weight) {
        String normalized = s.add("Mul", x, inverse);
        return weight.isEmpty() ? normalized : s.add("Mul", normalized, weight);
    }

    /**
     * com.microsoft.SkipSimplifiedLayerNormalization (input, skip, gamma, bias): the root mean square norm of
     * input + skip + bias. Result 2 is 1 / √(mean + epsilon), result 3 the sum.
     */
    private static boolean skipRootMeanSquare(RewriteContext s) {
        if (s.wants(1)) {
            return false; // A mean that this norm does not have.
        }
        String sum = s.plus(s.add("Add", s.in(0), s.in(1)), s.in(3));
        String inverse = inverse(s, sum, s.node().floatAttribute("epsilon", 1e-12f), -1);
        String normalized = weighted(s, sum, inverse, s.in(2));
        s.result(0, normalized);
        s.result(2, inverse);
        s.result(3, sum);
        return true;
    }

    /**
     * com.microsoft.SkipLayerNormalization (input, skip, gamma, beta, bias): the layer norm of input + skip + bias.
     * Results 1 and 2 are mean and 1 / √(variance + epsilon), result 3 is the sum.
     */
    private static boolean skipLayer(RewriteContext s) {
        String sum = s.plus(s.add("Add", s.in(0), s.in(1)), s.in(4));
        layerNorm(s, sum, s.in(2), s.in(3), 1e-12f);
        s.result(3, sum);
        return true;
    }

    /** LayerNormalization of {@code x} over the last axis; yields its results as those of the site that are wanted. */
    private static void layerNorm(RewriteContext s, String x, String gamma, String beta, float defaultEpsilon) {
        List<String> inputs = new ArrayList<>(List.of(x, gamma));
        if (!beta.isEmpty()) {
            inputs.add(beta);
        }
        boolean statistics = s.node().is("SkipLayerNormalization") && (s.wants(1) || s.wants(2));
        float epsilon = s.node().floatAttribute("epsilon", defaultEpsilon);
        List<String> results = s.graph()
                .add(
                        "LayerNormalization",
                        inputs,
                        Map.of("axis", new Attribute.Int(-1), "epsilon", new Attribute.Real(epsilon)),
                        statistics ? 3 : 1);
        for (int i = 0; i < results.size(); i++) {
            s.result(i, results.get(i));
        }
    }

    /**
     * com.microsoft.EmbedLayerNormalization (ids, segment ids, word, position and segment tables, gamma, beta, mask,
     * position ids): the layer norm of the sum of the embeddings. Result 1 counts the mask of every row, result 2 is the
     * sum of the embeddings.
     */
    private static boolean embedding(RewriteContext s) {
        String ids = s.in(0);
        String positions = s.has(8) ? s.in(8) : Ranges.upTo(s, Ranges.extent(s, ids, 1));
        String sum = s.add("Add", s.gather(s.in(2), ids, 0), s.gather(s.in(3), positions, 0));
        if (s.has(1) && s.has(4)) {
            sum = s.add("Add", sum, s.gather(s.in(4), s.in(1), 0));
        }
        layerNorm(s, sum, s.in(5), s.in(6), 1e-12f);
        s.result(2, sum);
        if (s.wants(1)) {
            String counted = s.has(7) ? s.in(7) : s.add("Sub", ids, ids);
            String lengths = s.add(
                    "ReduceSum",
                    List.of(s.cast(counted, DType.INT32), s.graph().ints(1)),
                    Map.of("keepdims", new Attribute.Int(0)));
            s.result(1, lengths);
        }
        return true;
    }
}
