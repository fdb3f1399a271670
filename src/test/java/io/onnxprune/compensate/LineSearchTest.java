// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.util.ArrayList;
import java.util.List;
import java.util.function.DoubleUnaryOperator;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class LineSearchTest {
    /** From lengths far too small, about right, and far too large. */
    @ParameterizedTest
    @ValueSource(doubles = {0.002, 0.1, 0.4, 30})
    void theLowestPointOfAParabola(double first) {
        LineSearch.Found found = LineSearch.run(x -> 3 + (x - 0.37) * (x - 0.37), 3 + 0.37 * 0.37, first);

        assertThat(found.length()).isCloseTo(0.37, within(1e-9));
        assertThat(found.value()).isCloseTo(3, within(1e-9));
    }

    @Test
    void theBestTriedLengthWhereTheFunctionIsNotAParabola() {
        List<Double> values = new ArrayList<>();
        DoubleUnaryOperator function = x -> {
            values.add(Math.abs(x - 0.3) * (1 + x * x * x));
            return values.get(values.size() - 1);
        };

        LineSearch.Found found = LineSearch.run(function, 0.3, 0.25);

        assertThat(values).hasSizeLessThan(5).contains(found.value());
        assertThat(found.value())
                .isEqualTo(values.stream().mapToDouble(v -> v).min().orElseThrow());
        assertThat(function.applyAsDouble(found.length())).isEqualTo(found.value());
    }

    @Test
    void zeroWhereItNeverDecreases() {
        assertThat(LineSearch.run(x -> 1 + x, 1, 0.5)).isEqualTo(new LineSearch.Found(0, 1));
        assertThat(LineSearch.run(x -> 1, 1, 0.5)).isEqualTo(new LineSearch.Found(0, 1));
        assertThat(LineSearch.run(x -> Double.NaN, 1, 0.5)).isEqualTo(new LineSearch.Found(0, 1));
    }

    @Test
    void valuesThatAreNotNumbersAreAvoided() {
        LineSearch.Found found = LineSearch.run(x -> x > 0.1 ? Double.NaN : 1 - x, 1, 1.6);

        assertThat(found).isEqualTo(new LineSearch.Found(0.1, 0.9));
    }

    @Test
    void theSearchEndsForAFunctionThatAlwaysDecreases() {
        assertThat(LineSearch.run(x -> -x, 0, 1).length()).isEqualTo(1024);
    }
}
