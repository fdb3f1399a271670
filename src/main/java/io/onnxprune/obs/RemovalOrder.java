// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import java.util.Comparator;
import java.util.stream.IntStream;

/**
 * The units to remove, in order, with the cost of each.
 *
 * @param order unit indices, in order of removal
 * @param costs the increase of ½ tr(Δwᵀ (a+λI) Δw g) by each removal, summed over the consumers, given the removals
 *     before it and optimal remaining weights; the first k costs add up to the cost of removing k units together. For
 *     independent removal, the cost of removing only that unit
 * @param damping λ as a share of the mean diagonal of {@code a}; larger than requested when the damping had to be
 *     raised
 */
@SuppressWarnings("ArrayRecordComponent") // a result, never compared
public record RemovalOrder(int[] order, double[] costs, double damping) {
    /**
     * The {@code count} units of lowest independent cost, cheapest first.
     *
     * @param costs independent cost of each unit
     * @param damping λ as a share of the mean diagonal that the costs were computed with
     */
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
