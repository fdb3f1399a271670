// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.Arrays;
import java.util.Random;
import java.util.stream.DoubleStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class ThresholdTest {
    private static Threshold lowest(long count, double... costs) {
        return Threshold.lowest(count, sink -> DoubleStream.of(costs).forEach(sink));
    }

    @ParameterizedTest
    @ValueSource(ints = {0, 1, 17, 500, 999, 1000})
    void theRequestedNumberOfLowestCostsIsTaken(int count) {
        Random random = new Random(2);
        double[] costs = random.doubles(1000).map(x -> Math.exp(60 * (x - 0.5))).toArray();
        Threshold threshold = lowest(count, costs);
        double[] sorted = costs.clone();
        Arrays.sort(sorted);

        double[] taken =
                DoubleStream.of(costs).filter(threshold::takes).sorted().toArray();

        assertThat(taken).containsExactly(Arrays.copyOf(sorted, count));
    }

    @Test
    void ofEqualCostsTheFirstAreTaken() {
        double[] costs = {2, 1, 2, 2, 0};
        Threshold threshold = lowest(3, costs);
        boolean[] taken = new boolean[costs.length];
        for (int i = 0; i < costs.length; i++) {
            taken[i] = threshold.takes(costs[i]);
        }
        assertThat(taken).containsExactly(true, true, false, false, true);
    }

    @Test
    void theSmallestNumbersAreDistinguished() {
        Threshold threshold = lowest(2, 0, 3e-300, Double.MIN_NORMAL, 1e-200, 0.5);
        assertThat(threshold.takes(0)).isTrue();
        assertThat(threshold.takes(3e-300)).isFalse();
        assertThat(threshold.takes(Double.MIN_NORMAL)).isTrue();
    }

    @Test
    void allTakesAll() {
        assertThat(Threshold.all().takes(1e300)).isTrue();
        assertThat(lowest(9, 1, 2).takes(5)).isTrue();
    }
}
