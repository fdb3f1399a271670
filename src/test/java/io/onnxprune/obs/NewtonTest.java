// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.diag.UserException;
import java.util.Random;
import org.apache.commons.math3.linear.LUDecomposition;
import org.apache.commons.math3.linear.MatrixUtils;
import org.apache.commons.math3.linear.RealMatrix;
import org.apache.commons.math3.linear.RealVector;
import org.junit.jupiter.api.Test;

class NewtonTest {
    private static final int INPUTS = 6;
    private static final int OUTPUTS = 4;

    /** Compared with the linear system over all elements of the weights, row by row: (a + λI) ⊗ (g + μI). */
    @Test
    void theStepSolvesTheFullSystem() {
        Random random = new Random(3);
        RealMatrix a = moment(random, INPUTS);
        RealMatrix g = moment(random, OUTPUTS);
        RealMatrix c = Problems.random(random, INPUTS, OUTPUTS);
        RealMatrix left = damped(a, 0.1);
        RealMatrix right = damped(g, 0.1);
        int size = INPUTS * OUTPUTS;
        RealMatrix system = MatrixUtils.createRealMatrix(size, size);
        RealVector target = MatrixUtils.createRealVector(new double[size]);
        for (int row = 0; row < size; row++) {
            target.setEntry(row, c.getEntry(row / OUTPUTS, row % OUTPUTS));
            for (int column = 0; column < size; column++) {
                system.setEntry(
                        row,
                        column,
                        left.getEntry(row / OUTPUTS, column / OUTPUTS)
                                * right.getEntry(row % OUTPUTS, column % OUTPUTS));
            }
        }
        RealVector expected = new LUDecomposition(system).getSolver().solve(target);

        try (Matrix found =
                Newton.step(Problems.matrix(a), Problems.matrix(c), Problems.matrix(g), Problems.damping(0.1))) {
            for (int row = 0; row < size; row++) {
                assertThat(found.get(row / OUTPUTS, row % OUTPUTS)).isCloseTo(expected.getEntry(row), within(1e-9));
            }
        }
    }

    @Test
    void deadChannelsAreNotChangedAndDoNotAffectOthers() {
        Random random = new Random(4);
        RealMatrix a = moment(random, INPUTS);
        RealMatrix g = moment(random, OUTPUTS);
        RealMatrix c = Problems.random(random, INPUTS, OUTPUTS);
        RealMatrix longer = MatrixUtils.createRealMatrix(INPUTS + 1, INPUTS + 1);
        longer.setSubMatrix(a.getData(), 0, 0);
        RealMatrix taller = MatrixUtils.createRealMatrix(INPUTS + 1, OUTPUTS);
        taller.setSubMatrix(c.getData(), 0, 0);

        try (Matrix expected =
                        Newton.step(Problems.matrix(a), Problems.matrix(c), Problems.matrix(g), Problems.damping(0.1));
                Matrix found = Newton.step(
                        Problems.matrix(longer), Problems.matrix(taller), Problems.matrix(g), Problems.damping(0.1))) {
            assertThat(Problems.real(found).getRow(INPUTS)).containsOnly(0);
            assertThat(Problems.real(found)
                            .getSubMatrix(0, INPUTS - 1, 0, OUTPUTS - 1)
                            .subtract(Problems.real(expected))
                            .getNorm())
                    .isLessThan(1e-12);
        }
    }

    @Test
    void numbersThatAreNotFiniteAreRefused() {
        Random random = new Random(5);
        RealMatrix g = moment(random, OUTPUTS);
        g.setEntry(1, 2, Double.NaN);
        RealMatrix a = moment(random, INPUTS);
        RealMatrix c = Problems.random(random, INPUTS, OUTPUTS);

        assertThatThrownBy(() ->
                        Newton.step(Problems.matrix(a), Problems.matrix(c), Problems.matrix(g), Problems.damping(0.1)))
                .isInstanceOf(UserException.class)
                .hasMessage("layer: the second moment of the gradients has numbers that are not finite");
    }

    private static RealMatrix moment(Random random, int size) {
        RealMatrix x = Problems.inputs(random, Problems.TOKENS, size);
        return x.transpose().multiply(x);
    }

    private static RealMatrix damped(RealMatrix moment, double share) {
        double lambda = share * moment.getTrace() / moment.getRowDimension();
        return moment.add(
                MatrixUtils.createRealIdentityMatrix(moment.getRowDimension()).scalarMultiply(lambda));
    }
}
