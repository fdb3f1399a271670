// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import java.util.Comparator;
import java.util.stream.IntStream;

/**
 * Units in the order in which they go.
 *
 * @param order indices of units, the cheapest first
 * @param costs what each removal adds to ½ tr(Δwᵀ (a+λI) Δw g), summed over the consumers, when the units before it are
 *     gone and the remaining weights are the best ones; so the first k add up to the cost of removing k units together
 * @param damping λ as a share of the mean diagonal of {@code a}, which is more than was asked for where that did not do
 */
@SuppressWarnings("ArrayRecordComponent") // a result, never compared
public record RemovalOrder(int[] order, double[] costs, double damping) {
    /** The {@code count} units that cost least, each taken by itself. */
    public static RemovalOrder cheapest(double[] costs, int count, double damping) {
        int[] order = IntStream.range(0, costs.length)
                .boxed()
                .sorted(Comparator.comparingDouble(unit -> costs[unit]))
                .limit(count)
                .mapToInt(Integer::intValue)
                .toArray();
        return new RemovalOrder(
                order, IntStream.of(order).mapToDouble(unit -> costs[unit]).toArray(), damping);
    }
}
