// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.pass;

import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Role;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.plan.PruneSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.function.ToDoubleFunction;

/**
 * Counts the operations of typical work, for T tokens and linear layers of n inputs and m outputs. Attention, norms and a model
 * that becomes smaller are left out: an estimate is an order of magnitude.
 *
 * @param layers all linear layers
 * @param consumers the linear layers that sum over a dimension that may be pruned
 * @param experts number of experts that may be pruned
 * @param tokens T
 */
public record CostModel(List<LinearLayer> layers, List<LinearLayer> consumers, int experts, long tokens) {
    /** The cost model of a dense model of which {@code prune} may be pruned. */
    public static CostModel of(DenseModel dense, PruneSet prune, long tokens) {
        Set<LinearLayer> consumers = new LinkedHashSet<>();
        int experts = 0;
        for (Dimension dimension : dense.structure().dimensions()) {
            if (dimension.isPrunable() && prune.roles().contains(dimension.role())) {
                consumers.addAll(dense.layers().of(dimension));
                experts += dimension.role() == Role.EXPERTS ? dimension.size() : 0;
            }
        }
        return new CostModel(dense.layers().all(), List.copyOf(consumers), experts, tokens);
    }

    /** A forward pass: 2nmT. */
    public Cost forward() {
        return Cost.ofModel(2 * tokens * sum(layers, layer -> n(layer) * m(layer)));
    }

    /** A forward pass without each expert, and one with all: 2nmT (1 + experts). */
    public Cost divergences() {
        return forward().times(1 + experts);
    }

    /** A forward pass and gradients of activations, with the second forward pass of their segments: 6nmT. */
    public Cost activationGradients() {
        return forward().times(3);
    }

    /** A forward pass and gradients of weights too: 8nmT. */
    public Cost weightGradients() {
        return forward().times(4);
    }

    /** XᵀX of the consumers: 2n²T. */
    public Cost inputMoments() {
        return new Cost(2 * tokens * sum(consumers, layer -> n(layer) * n(layer)), 0, 0, (long)
                (Float.BYTES * sum(consumers, layer -> n(layer) * n(layer))));
    }

    /** DᵀD of the consumers: 2m²T. */
    public Cost gradientMoments() {
        return new Cost(2 * tokens * sum(consumers, layer -> m(layer) * m(layer)), 0, 0, (long)
                (Float.BYTES * sum(consumers, layer -> m(layer) * m(layer))));
    }

    /** XᵀE of the consumers: 2nmT. */
    public Cost errorMoments() {
        return Cost.ofModel(2 * tokens * sum(consumers, layer -> n(layer) * m(layer)));
    }

    /** Removal of the consumers' inputs one by one: 3n³ + 2nm(n + m). */
    public Cost removal() {
        return new Cost(
                0,
                sum(consumers, layer -> 3 * Math.pow(n(layer), 3) + 2 * n(layer) * m(layer) * (n(layer) + m(layer))),
                matrices(),
                0);
    }

    /** Weights of the consumers that compensate: n³/3 + 2n²m. */
    public Cost solving() {
        return new Cost(
                0,
                sum(consumers, layer -> Math.pow(n(layer), 3) / 3 + 2 * n(layer) * n(layer) * m(layer)),
                matrices(),
                // New weights, their checkpoint, and the checkpoint before until it is replaced.
                (long) (3 * Float.BYTES * sum(consumers, layer -> n(layer) * m(layer))));
    }

    /** The matrices of the widest consumer. */
    private long matrices() {
        return (long) consumers.stream()
                .mapToDouble(layer ->
                        Double.BYTES * (4 * n(layer) * n(layer) + m(layer) * m(layer) + 2 * n(layer) * m(layer)))
                .max()
                .orElse(0);
    }

    private static double sum(List<LinearLayer> layers, ToDoubleFunction<LinearLayer> of) {
        return layers.stream().mapToDouble(of).sum();
    }

    private static double n(LinearLayer layer) {
        return layer.inputs();
    }

    private static double m(LinearLayer layer) {
        return layer.outputs();
    }
}
