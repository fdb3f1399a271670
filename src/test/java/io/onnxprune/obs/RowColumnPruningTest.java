// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class RowColumnPruningTest {
    private static final int[][] SIZES = {{6, 4}, {3, 9}, {5, 5}};

    /** Compared with the highest threshold whose elements, counted one by one, are within the limit. */
    @ParameterizedTest
    @ValueSource(doubles = {0, 0.05, 0.2, 0.5, 0.77, 0.99})
    void theThresholdIsTheHighestThatFits(double share) {
        Random random = new Random(3);
        double[][][] costs = new double[SIZES.length][2][];
        RowColumnPruning pruning = new RowColumnPruning();
        for (int layer = 0; layer < SIZES.length; layer++) {
            costs[layer][0] = random.doubles(SIZES[layer][0]).toArray();
            costs[layer][1] = random.doubles(SIZES[layer][1]).toArray();
            pruning.add(costs[layer][0], costs[layer][1]);
        }
        pruning.choose(share);

        double best = -1;
        for (double[][] sides : costs) {
            for (double[] side : sides) {
                for (double threshold : side) {
                    best = removed(costs, threshold) <= share * all() ? Math.max(best, threshold) : best;
                }
            }
        }
        for (int layer = 0; layer < SIZES.length; layer++) {
            assertThat(pruning.keptInputs(layer)).containsExactly(above(costs[layer][0], best));
            assertThat(pruning.keptOutputs(layer)).containsExactly(above(costs[layer][1], best));
        }
    }

    private static int[] above(double[] costs, double threshold) {
        return IntStream.range(0, costs.length)
                .filter(i -> costs[i] > threshold)
                .toArray();
    }

    private static int all() {
        return IntStream.range(0, SIZES.length)
                .map(layer -> SIZES[layer][0] * SIZES[layer][1])
                .sum();
    }

    private static int removed(double[][][] costs, double threshold) {
        int count = 0;
        for (double[][] sides : costs) {
            for (double input : sides[0]) {
                for (double output : sides[1]) {
                    count += input <= threshold || output <= threshold ? 1 : 0;
                }
            }
        }
        return count;
    }

    @Test
    void rowsAndColumnsOfNoCostAreRemovedFirst() {
        RowColumnPruning pruning = new RowColumnPruning();
        pruning.add(new double[] {1, 0, 2}, new double[] {0, 3});
        pruning.add(new double[] {0.5, 0.5}, new double[] {4, 5});
        pruning.choose(0.4);
        assertThat(pruning.keptInputs(0)).containsExactly(0, 2);
        assertThat(pruning.keptOutputs(0)).containsExactly(1);
        assertThat(pruning.keptInputs(1)).containsExactly(0, 1);
    }
}
