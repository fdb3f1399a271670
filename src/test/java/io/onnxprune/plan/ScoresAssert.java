// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

/** Compares scores that were computed in two ways. */
public final class ScoresAssert {
    private ScoresAssert() {}

    /** Asserts that all scores are equal but for a relative {@code difference}. */
    public static void assertEqual(Scores found, Scores expected, double difference) {
        assertThat(found.units().keySet()).isEqualTo(expected.units().keySet());
        expected.units()
                .forEach((name, units) -> assertEqual(name, found.units().get(name), units, difference));
        assertEqual("layers", found.layers(), expected.layers(), difference);
        assertEqual("blocks", found.blocks(), expected.blocks(), difference);
    }

    private static void assertEqual(String name, double[] found, double[] expected, double difference) {
        assertThat(found).as(name).hasSameSizeAs(expected);
        for (int i = 0; i < found.length; i++) {
            assertThat(found[i])
                    .as("%s %d", name, i)
                    .isCloseTo(expected[i], within(difference * Math.abs(expected[i])));
        }
    }
}
