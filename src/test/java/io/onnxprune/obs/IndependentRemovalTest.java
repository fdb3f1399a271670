// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.obs.GreedyRemoval.Rule;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.stream.IntStream;
import org.apache.commons.math3.linear.MatrixUtils;
import org.apache.commons.math3.linear.RealMatrix;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** Independent costs of units, compared with the losses of the changes that they stand for. */
class IndependentRemovalTest {
    private static final int UNITS = 5;
    private static final double SHARE = 0.05;

    private final List<LayerProblem> layers = new ArrayList<>();

    IndependentRemovalTest() {
        Random random = new Random(12);
        layers.add(Problems.layer(random, 4, true, 1, 2, 1, 3, 1, 2));
        layers.add(Problems.layer(random, 3, true, 0, 1, 1, 2, 2, 1));
    }

    @AfterEach
    void close() {
        layers.forEach(layer -> {
            layer.a().close();
            layer.w().close();
            layer.g().close();
        });
    }

    private double[] costs(Rule rule) {
        RemovalOrder removal = GreedyRemoval.of(layers, UNITS, rule, Problems.damping(SHARE));
        double[] costs = new double[UNITS];
        for (int i = 0; i < UNITS; i++) {
            costs[removal.order()[i]] = removal.costs()[i];
        }
        assertThat(removal.costs()).isSorted();
        return costs;
    }

    private static boolean[] removed(LayerProblem layer, int unit) {
        boolean[] removed = new boolean[layer.a().rows()];
        IntStream.of(layer.units().get(unit)).forEach(channel -> removed[channel] = true);
        return removed;
    }

    /** The change that sets the rows of a unit to zero and leaves all others. */
    private static RealMatrix zeroed(LayerProblem layer, int unit) {
        RealMatrix change =
                MatrixUtils.createRealMatrix(layer.a().rows(), layer.w().columns());
        for (int channel : layer.units().get(unit)) {
            change.setRow(channel, Problems.real(layer.w()).scalarMultiply(-1).getRow(channel));
        }
        return change;
    }

    @Test
    void independentCostIsTheLossWithCompensation() {
        double[] costs = costs(Rule.INDEPENDENT);
        for (int unit = 0; unit < UNITS; unit++) {
            double loss = 0;
            for (LayerProblem layer : layers) {
                RealMatrix a = Problems.damped(layer.a(), SHARE);
                loss += Problems.loss(a, Problems.bestChange(a, layer, removed(layer, unit)), layer.g());
            }
            assertThat(costs[unit]).isCloseTo(loss, within(1e-9 * loss));
        }
    }

    @Test
    void optimalBrainDamageIsTheLossWithoutCompensation() {
        double[] costs = costs(Rule.OBD);
        for (int unit = 0; unit < UNITS; unit++) {
            double loss = 0;
            for (LayerProblem layer : layers) {
                loss += Problems.loss(Problems.real(layer.a()), zeroed(layer, unit), layer.g());
            }
            assertThat(costs[unit]).isCloseTo(loss, within(1e-9 * loss));
        }
    }

    @Test
    void theDiagonalIgnoresInteractionsWithinAUnit() {
        double[] costs = costs(Rule.OBD_DIAGONAL);
        for (int unit = 0; unit < UNITS; unit++) {
            double loss = 0;
            for (LayerProblem layer : layers) {
                RealMatrix a = MatrixUtils.createRealDiagonalMatrix(
                        IntStream.range(0, layer.a().rows())
                                .mapToDouble(i -> layer.a().get(i, i))
                                .toArray());
                loss += Problems.loss(a, zeroed(layer, unit), layer.g());
            }
            assertThat(costs[unit]).isCloseTo(loss, within(1e-9 * loss));
        }
    }
}
