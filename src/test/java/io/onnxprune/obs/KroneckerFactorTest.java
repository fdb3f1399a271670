// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.diag.UserException;
import java.util.Arrays;
import java.util.Random;
import org.apache.commons.math3.linear.RealMatrix;
import org.junit.jupiter.api.Test;

class KroneckerFactorTest {
    private static final double SHARE = 0.01;
    private static final int INPUTS = 5;
    private static final int OUTPUTS = 4;

    private final LayerProblem layer = Problems.layer(new Random(8), OUTPUTS, true, INPUTS);
    private final RealMatrix w = Problems.real(layer.w());

    private KroneckerFactor inputs() {
        return KroneckerFactor.of(layer.a().copy(), Problems.damping(SHARE));
    }

    private KroneckerFactor outputs() {
        return KroneckerFactor.of(layer.g().copy(), Problems.damping(SHARE));
    }

    /** The loss of pruning the marked elements when all others compensate. */
    private double cost(boolean[][] removed) {
        RealMatrix a = Problems.damped(layer.a(), SHARE);
        RealMatrix g = Problems.damped(layer.g(), SHARE);
        RealMatrix change = Problems.bestChange(a, g, w, removed);
        return Problems.loss(a, change, Problems.matrix(g));
    }

    @Test
    void elementCostIsThatOfItsIndependentRemoval() {
        try (KroneckerFactor inputs = inputs();
                KroneckerFactor outputs = outputs()) {
            double[] byInput = inputs.weights();
            double[] byOutput = outputs.weights();
            for (int i = 0; i < INPUTS; i++) {
                for (int j = 0; j < OUTPUTS; j++) {
                    boolean[][] removed = new boolean[INPUTS][OUTPUTS];
                    removed[i][j] = true;
                    double expected = cost(removed);
                    assertThat(0.5 * w.getEntry(i, j) * w.getEntry(i, j) * byInput[i] * byOutput[j])
                            .isCloseTo(expected, within(1e-9 * expected));
                }
            }
        }
    }

    /** Without damping, because {@link KroneckerFactor#halfForms} leaves the damping out. */
    @Test
    void inputAndOutputCostsAreThoseOfTheirIndependentRemoval() {
        RealMatrix a = Problems.real(layer.a());
        RealMatrix g = Problems.real(layer.g());
        try (KroneckerFactor inputs = KroneckerFactor.of(layer.a().copy(), Problems.damping(0));
                KroneckerFactor outputs = KroneckerFactor.of(layer.g().copy(), Problems.damping(0));
                Matrix transposed = layer.w().transposed()) {
            double[] ofInputs = outputs.halfForms(transposed);
            double[] ofOutputs = inputs.halfForms(layer.w());
            for (int i = 0; i < INPUTS; i++) {
                boolean[][] removed = new boolean[INPUTS][OUTPUTS];
                Arrays.fill(removed[i], true);
                double expected = Problems.loss(a, Problems.bestChange(a, g, w, removed), layer.g());
                assertThat(ofInputs[i] * inputs.weights()[i]).isCloseTo(expected, within(1e-8 * expected));
            }
            for (int j = 0; j < OUTPUTS; j++) {
                boolean[][] removed = new boolean[INPUTS][OUTPUTS];
                for (boolean[] row : removed) {
                    row[j] = true;
                }
                double expected = Problems.loss(a, Problems.bestChange(a, g, w, removed), layer.g());
                assertThat(ofOutputs[j] * outputs.weights()[j]).isCloseTo(expected, within(1e-8 * expected));
            }
        }
    }

    @Test
    void dampingAffectsTheInverseOnly() {
        try (KroneckerFactor side =
                        KroneckerFactor.of(Matrix.of(new double[][] {{2, 0}, {0, 4}}), Problems.damping(1));
                Matrix w = Matrix.of(new double[][] {{3}, {1}})) {
            assertThat(side.weights()).containsExactly(new double[] {5, 7}, within(1e-12));
            assertThat(side.halfForms(w)).containsExactly((2 * 9 + 4) / 2.0);
        }
    }

    @Test
    void deadChannelsCostNothing() {
        try (KroneckerFactor side = KroneckerFactor.of(
                        Matrix.of(new double[][] {{2, 0, 1}, {0, 0, 0}, {1, 0, 2}}), Problems.damping(0));
                Matrix w = Matrix.of(new double[][] {{0, 1}, {5, 0}, {0, 0}})) {
            assertThat(side.weights()[0]).isCloseTo(1.5, within(1e-12));
            assertThat(side.weights()[1]).isZero();
            assertThat(side.halfForms(w)).containsExactly(0, 1);
        }
    }

    @Test
    void numbersMustBeFinite() {
        assertThatThrownBy(() -> KroneckerFactor.of(Matrix.of(new double[][] {{Double.NaN}}), Problems.damping(0)))
                .isInstanceOf(UserException.class)
                .hasMessage("layer: the second moment has numbers that are not finite");
    }
}
