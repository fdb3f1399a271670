// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.algebra.Pointwise;
import java.util.List;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

/**
 * A loss that is linear in the output y = xW changes by ⟨C, ΔW⟩ for any change of W, however large, so what a gate does can be
 * compared with weights that are solved with and without its unit.
 */
class GatesTest {
    private static final int OUT = 3;
    private static final Damping DAMPING = Problems.damping(0.1);

    private final Random random = new Random(3);
    private final LayerProblem layer = Problems.layer(random, OUT, true, 1, 2, 1, 3);
    private final Matrix c = Problems.matrix(Problems.random(random, layer.w().rows(), OUT));

    private double[] compensated(int[] kept) {
        try (Matrix solved = solved(kept)) {
            Gates.Layer gated = new Gates.Layer(layer.a(), layer.w(), solved);
            return Gates.compensated(gated, c, kept, layer.units(), DAMPING);
        }
    }

    private Matrix solved(int[] kept) {
        return LeastSquares.keep(layer.a(), layer.w(), kept, DAMPING);
    }

    /** The channels of all units but some, with those of none. */
    private int[] without(int... units) {
        return IntStream.range(0, layer.w().rows())
                .filter(channel -> IntStream.of(units)
                        .noneMatch(unit -> IntStream.of(layer.units().get(unit)).anyMatch(i -> i == channel)))
                .toArray();
    }

    private double change(Matrix from, Matrix to) {
        return Pointwise.dot(c, to) - Pointwise.dot(c, from);
    }

    @Test
    void theGatesOfKeptUnitsGiveWhatTheirRemovalChanges() {
        double[] found = compensated(without(1));

        for (int unit : new int[] {0, 2}) {
            try (Matrix with = solved(without(1));
                    Matrix less = solved(without(1, unit))) {
                assertThat(found[unit]).isCloseTo(change(less, with), within(1e-9));
            }
        }
    }

    @Test
    void theGateOfTheOnlyRemovedUnitGivesWhatItsReturnChanges() {
        for (int unit = 0; unit < layer.units().size(); unit++) {
            try (Matrix less = solved(without(unit))) {
                assertThat(compensated(without(unit))[unit]).isCloseTo(change(less, layer.w()), within(1e-9));
            }
        }
    }

    @Test
    void withoutCompensationAUnitAddsItsOwnWeights() {
        double[] found = Gates.plain(layer.w(), c, List.of(new int[] {0, 2}, new int[] {1}));

        double[] channels = new double[3];
        for (int i = 0; i < 3; i++) {
            for (int j = 0; j < OUT; j++) {
                channels[i] += layer.w().get(i, j) * c.get(i, j);
            }
        }
        assertThat(found).containsExactly(new double[] {channels[0] + channels[2], channels[1]}, within(1e-12));
    }
}
