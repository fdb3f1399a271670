// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Matrix;
import java.util.List;

/** Independent removal: each unit is scored by the cost of removing only it. */
final class IndependentRemoval {
    private IndependentRemoval() {}

    /**
     * The cheapest {@code count} units with their independent costs, summed over the consumers.
     *
     * @param share λ as a share of the mean diagonal of each {@code a}
     * @throws SingularException when a damped second moment is not positive definite
     */
    static RemovalOrder run(List<LayerProblem> consumers, int count, GreedyRemoval.Rule rule, double share) {
        double[] costs = new double[consumers.get(0).units().size()];
        consumers.forEach(consumer -> addCosts(consumer, rule, share, costs));
        return RemovalOrder.cheapest(costs, count, share);
    }

    private static void addCosts(LayerProblem consumer, GreedyRemoval.Rule rule, double share, double[] costs) {
        if (rule == GreedyRemoval.Rule.INDEPENDENT) {
            try (Downdate layer = new Downdate(consumer, share * Damping.meanDiagonal(consumer.a()))) {
                layer.addCosts(costs, false);
            }
        } else {
            addCosts(consumer, rule == GreedyRemoval.Rule.OBD_DIAGONAL, costs);
        }
    }

    /**
     * Adds ½ Σ_ij a_ij s_ij over the channels i and j of each unit, with s = w g wᵀ.
     *
     * @param diagonal whether only i = j counts
     */
    private static void addCosts(LayerProblem layer, boolean diagonal, double[] costs) {
        try (Matrix weighted = layer.g() == null ? layer.w().copy() : Blas.largeProduct(layer.w(), layer.g())) {
            double[] left = new double[weighted.columns()];
            double[] right = new double[weighted.columns()];
            for (int unit = 0; unit < costs.length; unit++) {
                for (int i : layer.units().get(unit)) {
                    weighted.getRow(i, left);
                    for (int j : diagonal ? new int[] {i} : layer.units().get(unit)) {
                        layer.w().getRow(j, right);
                        costs[unit] += layer.a().get(i, j) * dot(left, right) / 2;
                    }
                }
            }
        }
    }

    private static double dot(double[] left, double[] right) {
        double sum = 0;
        for (int i = 0; i < left.length; i++) {
            sum += left[i] * right[i];
        }
        return sum;
    }
}
