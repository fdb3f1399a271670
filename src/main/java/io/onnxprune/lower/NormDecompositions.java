// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** Decompositions of RMS and length normalisations, and of normalisations fused with the residual addition or the embedding. */
final class NormDecompositions {
    /** A length, or its square, below which a vector counts as zero. */
    private static final float SHORTEST = 1e-30f;

    private NormDecompositions() {}

    static void register(Decompositions.Table table) {
        table.onnx(NormDecompositions::rootMeanSquare, "SimplifiedLayerNormalization", "RMSNormalization");
        table.contrib(NormDecompositions::rootMeanSquare, "SimplifiedLayerNormalization");
        table.contrib(NormDecompositions::skipRootMeanSquare, "SkipSimplifiedLayerNormalization");
        table.contrib(NormDecompositions::skipLayer, "SkipLayerNormalization");
        table.contrib(NormDecompositions::embedding, "EmbedLayerNormalization");
        table.onnx(NormDecompositions::length, "LpNormalization");
    }

    /**
     * RMSNormalization of opset 23 and ONNX Runtime's SimplifiedLayerNormalization: x · r · w over the axes from
     * {@code axis} on, with r = 1 / √(mean(x²) + epsilon), which is the second output.
     */
    private static boolean rootMeanSquare(RewriteContext c) {
        int rank = c.rank(0);
        int axis = Math.floorMod((int) c.node().intAttribute("axis", -1), rank);
        long[] axes = axis == rank - 1 ? new long[] {-1} : RewriteContext.axes(axis, rank);
        String inverse = inverse(c, c.in(0), c.node().floatAttribute("epsilon", 1e-5f), axes);
        c.result(0, weighted(c, c.in(0), inverse, c.in(1)));
        c.result(1, inverse);
        return true;
    }

    /** LpNormalization of opset 1: x divided by its length along an axis, Σ|x| or √Σx²; zeros stay zeros. */
    private static boolean length(RewriteContext c) {
        long axis = c.node().intAttribute("axis", -1);
        boolean squared = c.node().intAttribute("p", 2) == 2;
        String sum = c.reduce(squared ? "ReduceSumSquare" : "ReduceL1", c.in(0), axis);
        String length = c.add("Max", sum, c.scalar(SHORTEST));
        c.result(0, c.add("Mul", c.in(0), c.add("Reciprocal", squared ? c.add("Sqrt", length) : length)));
        return true;
    }

    /** x · r · w over the last axis, with r = 1 / √(mean(x²) + epsilon). */
    static String rootMeanSquare(RewriteContext c, String x, String weight, float epsilon) {
        return weighted(c, x, inverse(c, x, epsilon, -1), weight);
    }

    private static String inverse(RewriteContext c, String x, float epsilon, long... axes) {
        // The gradient of a product with a small reciprocal is cheaper than that of a quotient of full size.
        String mean = c.reduce("ReduceMean", c.add("Mul", x, x), axes);
        return c.add("Reciprocal", c.add("Sqrt", c.add("Add", mean, c.scalar(epsilon))));
    }

    private static String weighted(RewriteContext c, String x, String inverse, String weight) {
        String normalized = c.add("Mul", x, inverse);
        return weight.isEmpty() ? normalized : c.add("Mul", normalized, weight);
    }

    /**
     * com.microsoft.SkipSimplifiedLayerNormalization (input, skip, gamma, bias): the RMS norm of input + skip + bias.
     * Output 2 is 1 / √(mean + epsilon), output 3 the sum.
     */
    private static boolean skipRootMeanSquare(RewriteContext c) {
        if (c.wants(1)) {
            return false; // An RMS norm has no mean.
        }
        String sum = c.plus(c.add("Add", c.in(0), c.in(1)), c.in(3));
        String inverse = inverse(c, sum, c.node().floatAttribute("epsilon", 1e-12f), -1);
        String normalized = weighted(c, sum, inverse, c.in(2));
        c.result(0, normalized);
        c.result(2, inverse);
        c.result(3, sum);
        return true;
    }

    /**
     * com.microsoft.SkipLayerNormalization (input, skip, gamma, beta, bias): the layer norm of input + skip + bias.
     * Outputs 1 and 2 are mean and 1 / √(variance + epsilon), output 3 is the sum.
     */
    private static boolean skipLayer(RewriteContext c) {
        String sum = c.plus(c.add("Add", c.in(0), c.in(1)), c.in(4));
        layerNorm(c, sum, c.in(2), c.in(3), 1e-12f);
        c.result(3, sum);
        return true;
    }

    /**
     * Appends a LayerNormalization of {@code x} over the last axis. Its outputs become those results of the operator
     * that are used.
     */
    private static void layerNorm(RewriteContext c, String x, String gamma, String beta, float defaultEpsilon) {
        List<String> inputs = new ArrayList<>(List.of(x, gamma));
        if (!beta.isEmpty()) {
            inputs.add(beta);
        }
        boolean statistics = c.node().is("SkipLayerNormalization") && (c.wants(1) || c.wants(2));
        float epsilon = c.node().floatAttribute("epsilon", defaultEpsilon);
        List<String> results = c.graph()
                .add(
                        "LayerNormalization",
                        inputs,
                        Map.of("axis", new Attribute.Int(-1), "epsilon", new Attribute.Real(epsilon)),
                        statistics ? 3 : 1);
        for (int i = 0; i < results.size(); i++) {
            c.result(i, results.get(i));
        }
    }

    /**
     * com.microsoft.EmbedLayerNormalization (ids, segment ids, word, position and segment tables, gamma, beta, mask,
     * position ids): the layer norm of the sum of the embeddings. Output 1 is the number of unmasked tokens of every
     * row, output 2 the sum of the embeddings.
     */
    private static boolean embedding(RewriteContext c) {
        String ids = c.in(0);
        String positions = c.has(8) ? c.in(8) : Ranges.upTo(c, Ranges.extent(c, ids, 1));
        String sum = c.add("Add", c.gather(c.in(2), ids, 0), c.gather(c.in(3), positions, 0));
        if (c.has(1) && c.has(4)) {
            sum = c.add("Add", sum, c.gather(c.in(4), c.in(1), 0));
        }
        layerNorm(c, sum, c.in(5), c.in(6), 1e-12f);
        c.result(2, sum);
        if (c.wants(1)) {
            String counted = c.has(7) ? c.in(7) : c.add("Sub", ids, ids);
            String lengths = c.add(
                    "ReduceSum",
                    List.of(c.cast(counted, DType.INT32), c.graph().ints(1)),
                    Map.of("keepdims", new Attribute.Int(0)));
            c.result(1, lengths);
        }
        return true;
    }
}
