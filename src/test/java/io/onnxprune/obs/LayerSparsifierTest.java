// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.diag.UserException;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.apache.commons.math3.linear.LUDecomposition;
import org.apache.commons.math3.linear.RealMatrix;
import org.apache.commons.math3.linear.RealVector;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

class LayerSparsifierTest {
    private static final double SHARE = 0.01;
    /** One block of 128 inputs and a smaller one. */
    private static final int INPUTS = 140;

    private static final int OUTPUTS = 7;

    static Stream<Pattern> patterns() {
        return Stream.of(
                new Pattern.Unstructured(0.5),
                new Pattern.Unstructured(0.3),
                new Pattern.Grouped(2, 4),
                new Pattern.Grouped(1, 5),
                new Pattern.Grouped(80, 140));
    }

    @ParameterizedTest
    @MethodSource("patterns")
    void zerosFollowThePattern(Pattern pattern) {
        LayerProblem layer = layer(1);
        try (Matrix sparse = LayerSparsifier.sparseGpt(layer.a(), layer.w(), pattern, Problems.damping(SHARE));
                Matrix byWanda = LayerSparsifier.wanda(layer.a(), layer.w(), pattern, Problems.damping(SHARE))) {
            RealMatrix bySparseGpt = Problems.real(sparse);
            RealMatrix wandaWeights = Problems.real(byWanda);
            if (pattern instanceof Pattern.Grouped grouped) {
                for (int j = 0; j < OUTPUTS; j++) {
                    for (int i = 0; i < INPUTS; i += grouped.of()) {
                        int last = i + grouped.of() - 1;
                        assertThat(zeros(bySparseGpt.getSubMatrix(i, last, j, j)))
                                .isEqualTo(grouped.zeros());
                        assertThat(zeros(wandaWeights.getSubMatrix(i, last, j, j)))
                                .isEqualTo(grouped.zeros());
                    }
                }
            } else if (pattern instanceof Pattern.Unstructured unstructured) {
                double share = unstructured.share();
                assertThat(zeros(bySparseGpt)).isEqualTo(Math.round(share * INPUTS * OUTPUTS));
                assertThat(zeros(bySparseGpt.getSubMatrix(0, 127, 0, OUTPUTS - 1)))
                        .isEqualTo(Math.round(share * 128 * OUTPUTS));
                for (int j = 0; j < OUTPUTS; j++) {
                    assertThat(zeros(wandaWeights.getColumnMatrix(j))).isEqualTo(Math.round(share * INPUTS));
                }
            }
        }
    }

    /** Input by input, with earlier ones fixed, later inputs take the values of a dense solution. */
    @ParameterizedTest
    @MethodSource("patterns")
    void laterInputsCompensateForEachZero(Pattern pattern) {
        LayerProblem layer = layer(2);
        RealMatrix a = Problems.damped(layer.a(), SHARE);
        RealMatrix w = Problems.real(layer.w());
        try (Matrix sparse = LayerSparsifier.sparseGpt(layer.a(), layer.w(), pattern, Problems.damping(SHARE))) {
            RealMatrix found = Problems.real(sparse);
            RealMatrix expected = w.copy();
            for (int i = 0; i < INPUTS - 1; i++) {
                int[] later = IntStream.range(i + 1, INPUTS).toArray();
                RealVector change = null;
                for (int j = 0; j < OUTPUTS; j++) {
                    if (found.getEntry(i, j) == 0) {
                        change = change == null ? solve(a, later, i) : change;
                        double lost = expected.getEntry(i, j);
                        expected.setEntry(i, j, 0);
                        for (int k = 0; k < later.length; k++) {
                            expected.addToEntry(later[k], j, lost * change.getEntry(k));
                        }
                    }
                }
            }
            // The last input has none after it.
            RealMatrix difference = found.subtract(expected).getSubMatrix(0, INPUTS - 2, 0, OUTPUTS - 1);
            assertThat(difference.getNorm()).isLessThan(1e-9);
            assertThat(found.subtract(w).getNorm()).isGreaterThan(1);
        }
    }

    @ParameterizedTest
    @MethodSource("patterns")
    void theUpdateLowersTheLoss(Pattern pattern) {
        LayerProblem layer = layer(3);
        RealMatrix w = Problems.real(layer.w());
        try (Matrix sparse = LayerSparsifier.sparseGpt(layer.a(), layer.w(), pattern, Problems.damping(SHARE));
                Matrix wanda = LayerSparsifier.wanda(layer.a(), layer.w(), pattern, Problems.damping(SHARE))) {
            RealMatrix found = Problems.real(sparse);
            RealMatrix notUpdated = w.copy();
            for (int i = 0; i < INPUTS; i++) {
                for (int j = 0; j < OUTPUTS; j++) {
                    if (found.getEntry(i, j) == 0) {
                        notUpdated.setEntry(i, j, 0);
                    }
                }
            }
            double updated = loss(layer, found, w);

            assertThat(updated).isPositive().isLessThan(0.7 * loss(layer, notUpdated, w));
            assertThat(updated).isLessThan(loss(layer, Problems.real(wanda), w));
        }
    }

    /**
     * If the zeros are the first inputs of a single output, no weight is fixed too early and SparseGPT is the exact
     * solution.
     */
    @Test
    void oneOutputIsSolvedExactlyWhenTheFirstInputsArePruned() {
        LayerProblem layer = Problems.layer(new Random(4), 1, false, 10);
        for (int i = 0; i < 5; i++) {
            layer.w().set(i, 0, 0.01 * layer.w().get(i, 0));
        }
        try (Matrix found = LayerSparsifier.sparseGpt(
                        layer.a(), layer.w(), new Pattern.Unstructured(0.5), Problems.damping(SHARE));
                Matrix exact =
                        LeastSquares.keep(layer.a(), layer.w(), new int[] {5, 6, 7, 8, 9}, Problems.damping(SHARE))) {
            assertThat(Problems.real(found).getColumn(0))
                    .containsExactly(Problems.real(exact).getColumn(0), within(1e-12));
        }
    }

    @Test
    void wandaKeepsTheLargestScoresOfEachOutput() {
        try (Matrix a = Matrix.of(new double[][] {{4, 1, 0}, {1, 1, 0}, {0, 0, 0}});
                Matrix w = Matrix.of(new double[][] {{1, -3}, {-1.5, 7}, {9, 9}})) {
            try (Matrix found = LayerSparsifier.wanda(a, w, new Pattern.Unstructured(2.0 / 3), Problems.damping(0))) {
                assertThat(Problems.real(found).getData()).isDeepEqualTo(new double[][] {{1, 0}, {0, 7}, {0, 0}});
            }
        }
    }

    @Test
    void groupsMustDivideTheInputs() {
        LayerProblem layer = Problems.layer(new Random(4), 1, false, 10);

        assertThatThrownBy(() -> LayerSparsifier.sparseGpt(
                        layer.a(), layer.w(), new Pattern.Grouped(2, 4), Problems.damping(SHARE)))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("layer: its 10 inputs cannot be divided into groups of 4");
    }

    private static LayerProblem layer(int seed) {
        Random random = new Random(seed);
        RealMatrix x = Problems.random(random, 2 * INPUTS, INPUTS);
        // Neighbouring inputs are correlated, so that compensation has an effect.
        for (int i = 0; i < 2 * INPUTS; i++) {
            for (int j = 1; j < INPUTS; j++) {
                x.setEntry(i, j, 0.7 * x.getEntry(i, j - 1) + x.getEntry(i, j));
            }
        }
        return new LayerProblem(
                Problems.matrix(x.transpose().multiply(x)),
                Problems.matrix(Problems.random(random, INPUTS, OUTPUTS)),
                null,
                List.of());
    }

    /** The change of later inputs' weights when 1 is taken from the weight of input {@code i}. */
    private static RealVector solve(RealMatrix a, int[] later, int i) {
        return new LUDecomposition(a.getSubMatrix(later, later))
                .getSolver()
                .solve(a.getSubMatrix(later, new int[] {i}).getColumnVector(0));
    }

    private static double loss(LayerProblem layer, RealMatrix found, RealMatrix w) {
        return Problems.loss(Problems.real(layer.a()), found.subtract(w), null);
    }

    private static long zeros(RealMatrix values) {
        return Stream.of(values.getData())
                .flatMapToDouble(Arrays::stream)
                .filter(value -> value == 0)
                .count();
    }
}
