// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.algebra.Matrix;
import java.util.BitSet;
import java.util.Random;
import org.apache.commons.math3.linear.RealMatrix;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class ElementUpdateTest {
    private static final double SHARE = 0.01;
    private static final int INPUTS = 7;
    private static final int OUTPUTS = 5;

    private final LayerProblem layer = Problems.layer(new Random(6), OUTPUTS, true, INPUTS);
    private final RealMatrix w = Problems.real(layer.w());
    private final RealMatrix a = Problems.damped(layer.a(), SHARE);
    private final RealMatrix g = Problems.damped(layer.g(), SHARE);

    /** One of the methods of {@link ElementUpdate}. */
    private interface Update {
        void apply(KroneckerFactor inputs, KroneckerFactor outputs, Matrix w, BitSet[] zeros);
    }

    private RealMatrix updated(BitSet[] zeros, Update update) {
        try (KroneckerFactor inputs = KroneckerFactor.of(layer.a().copy(), Problems.damping(SHARE));
                KroneckerFactor outputs = KroneckerFactor.of(layer.g().copy(), Problems.damping(SHARE));
                Matrix byOutput = layer.w().transposed()) {
            update.apply(inputs, outputs, byOutput, zeros);
            return Problems.real(byOutput).transpose();
        }
    }

    private static Update inGroups(int limit) {
        return (inputs, outputs, w, zeros) -> ElementUpdate.inGroups(inputs, outputs, w, zeros, limit);
    }

    private static Update withoutUpdate() {
        return (inputs, outputs, w, zeros) -> ElementUpdate.clear(w, zeros);
    }

    /** Independent updates: each element from the original weights, with the changes added up. */
    private static Update independent() {
        return (inputs, outputs, w, zeros) -> {
            try (Matrix sum = Matrix.zeros(w.rows(), w.columns())) {
                for (int j = 0; j < zeros.length; j++) {
                    for (int i = zeros[j].nextSetBit(0); i >= 0; i = zeros[j].nextSetBit(i + 1)) {
                        BitSet[] one = sets(zeros.length);
                        one[j].set(i);
                        try (Matrix single = w.copy()) {
                            ElementUpdate.inGroups(inputs, outputs, single, one, 1);
                            add(single, w, sum);
                        }
                    }
                }
                add(sum, null, w);
            }
            ElementUpdate.clear(w, zeros);
        };
    }

    private static void add(Matrix term, Matrix without, Matrix sum) {
        for (int i = 0; i < sum.rows(); i++) {
            for (int j = 0; j < sum.columns(); j++) {
                sum.add(i, j, term.get(i, j) - (without == null ? 0 : without.get(i, j)));
            }
        }
    }

    private static BitSet[] sets(int count) {
        BitSet[] sets = new BitSet[count];
        for (int j = 0; j < count; j++) {
            sets[j] = new BitSet();
        }
        return sets;
    }

    private static BitSet[] random(int seed, double share) {
        Random random = new Random(seed);
        BitSet[] zeros = sets(OUTPUTS);
        for (BitSet ofOutput : zeros) {
            for (int i = 0; i < INPUTS; i++) {
                ofOutput.set(i, random.nextDouble() < share);
            }
        }
        return zeros;
    }

    private static boolean[][] removed(BitSet[] zeros) {
        boolean[][] removed = new boolean[INPUTS][OUTPUTS];
        for (int j = 0; j < zeros.length; j++) {
            for (int i = 0; i < INPUTS; i++) {
                removed[i][j] = zeros[j].get(i);
            }
        }
        return removed;
    }

    private double loss(RealMatrix found) {
        return Problems.loss(a, found.subtract(w), Problems.matrix(g));
    }

    @ParameterizedTest
    @ValueSource(doubles = {0.1, 0.5, 0.9})
    void jointUpdateIsTheConstrainedMinimum(double share) {
        BitSet[] zeros = random(3, share);
        RealMatrix expected = w.add(Problems.bestChange(a, g, w, removed(zeros)));

        RealMatrix together = updated(zeros, ElementUpdate::together);
        assertThat(loss(together)).isBetween(loss(expected) * (1 - 1e-9), loss(expected) * (1 + 2e-3));

        RealMatrix oneGroup = updated(zeros, inGroups(INPUTS * OUTPUTS));
        assertThat(oneGroup.subtract(expected).getNorm()).isLessThan(1e-9);
    }

    /** Solved by the system of the pruned elements, and by that of the kept ones. */
    @ParameterizedTest
    @ValueSource(ints = {2, 5})
    void anyNumberOfElementsOfOneOutputIsTheConstrainedMinimum(int count) {
        BitSet[] zeros = sets(OUTPUTS);
        zeros[2].set(1, 1 + count);
        RealMatrix expected = w.add(Problems.bestChange(a, g, w, removed(zeros)));

        assertThat(updated(zeros, inGroups(1)).subtract(expected).getNorm()).isLessThan(1e-9);
    }

    /** The second group starts from the result of the first, and its changes at the first group's zeros are undone. */
    @Test
    void groupsFollowOneAnother() {
        BitSet[] zeros = sets(OUTPUTS);
        zeros[0].set(0, 3);
        zeros[1].set(2);
        zeros[3].set(1, 4);
        BitSet[] first = {zeros[0], zeros[1], new BitSet(), new BitSet(), new BitSet()};
        BitSet[] second = {new BitSet(), new BitSet(), new BitSet(), zeros[3], new BitSet()};
        RealMatrix expected = w.add(Problems.bestChange(a, g, w, removed(first)));
        expected = expected.add(Problems.bestChange(a, g, expected, removed(second)));
        for (int i = 0; i < INPUTS; i++) {
            for (int j = 0; j < OUTPUTS; j++) {
                if (first[j].get(i)) {
                    expected.setEntry(i, j, 0);
                }
            }
        }
        assertThat(updated(zeros, inGroups(4)).subtract(expected).getNorm()).isLessThan(1e-9);
    }

    @Test
    void largerGroupsLowerTheLoss() {
        BitSet[] zeros = random(4, 0.5);
        double withoutUpdate = loss(updated(zeros, withoutUpdate()));
        double independent = loss(updated(zeros, independent()));
        double groups = loss(updated(zeros, inGroups(INPUTS)));
        double together = loss(updated(zeros, ElementUpdate::together));

        assertThat(together).isPositive().isLessThan(0.99 * groups);
        assertThat(groups).isLessThan(0.99 * withoutUpdate).isLessThan(0.99 * independent);
    }

    @Test
    void zerosAreExactWithDeadChannels() {
        BitSet[] zeros = random(5, 0.5);
        layer.a().setRow(2, new double[INPUTS]);
        for (int i = 0; i < INPUTS; i++) {
            layer.a().set(i, 2, 0);
        }
        for (Update update : new Update[] {ElementUpdate::together, inGroups(6), inGroups(1)}) {
            RealMatrix found = updated(zeros, update);
            for (int i = 0; i < INPUTS; i++) {
                for (int j = 0; j < OUTPUTS; j++) {
                    if (zeros[j].get(i)) {
                        assertThat(found.getEntry(i, j)).isZero();
                    }
                }
            }
        }
    }

    @Test
    void noZerosChangeNothing() {
        BitSet[] zeros = sets(OUTPUTS);
        assertThat(updated(zeros, ElementUpdate::together)).isEqualTo(w);
        assertThat(updated(zeros, inGroups(4))).isEqualTo(w);
    }
}
