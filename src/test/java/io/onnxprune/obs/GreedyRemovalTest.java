// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.RecordedLog;
import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Cholesky;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.diag.UserException;
import java.util.Comparator;
import java.util.List;
import java.util.Random;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;
import java.util.stream.DoubleStream;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.apache.commons.math3.linear.RealMatrix;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

class GreedyRemovalTest {
    private static final double SHARE = 0.01;

    /** A named case: the linear layers that consume one dimension. */
    record Case(String name, List<LayerProblem> layers) {
        @Override
        public String toString() {
            return name;
        }
    }

    static Stream<Case> cases() {
        Random random = new Random(7);
        int[] ones = {1, 1, 1, 1, 1, 1, 1, 1};
        return Stream.of(
                new Case("channels", List.of(Problems.layer(random, 3, false, 0, ones))),
                new Case("channels, with gradients", List.of(Problems.layer(random, 3, true, 0, ones))),
                new Case("one output", List.of(Problems.layer(random, 1, true, 2, ones))),
                new Case("heads", List.of(Problems.layer(random, 3, false, 0, 3, 3, 3, 3))),
                new Case(
                        "heads, with gradients and channels of no unit",
                        List.of(Problems.layer(random, 4, true, 3, 2, 2, 2, 2))),
                new Case("units of all sizes", List.of(Problems.layer(random, 2, true, 1, 1, 4, 0, 2, 3))),
                new Case(
                        "two layers",
                        List.of(
                                Problems.layer(random, 3, true, 0, 1, 1, 1, 1, 1),
                                Problems.layer(random, 2, false, 2, 2, 1, 0, 2, 1))));
    }

    /** Every step is the cheapest single removal, and its cost is that of the optimal remaining weights. */
    @ParameterizedTest
    @MethodSource("cases")
    void eachStepIsTheCheapestOfAll(Case of) {
        int units = of.layers().get(0).units().size();

        RemovalOrder removal = GreedyRemoval.of(of.layers(), units, GreedyRemoval.Rule.EXACT, Problems.damping(SHARE));

        assertThat(removal.damping()).isEqualTo(SHARE);
        boolean[] removedUnits = new boolean[units];
        double before = 0;
        for (int step = 0; step < units; step++) {
            double[] totals = new double[units];
            for (int unit = 0; unit < units; unit++) {
                boolean[] tried = removedUnits.clone();
                tried[unit] = true;
                totals[unit] = removedUnits[unit] ? Double.POSITIVE_INFINITY : exactCost(of.layers(), tried);
            }
            int chosen = removal.order()[step];
            assertThat(totals[chosen] - before).isCloseTo(removal.costs()[step], within(1e-8 * (1 + totals[chosen])));
            assertThat(totals[chosen]).isCloseTo(DoubleStream.of(totals).min().orElseThrow(), within(1e-9));
            removedUnits[chosen] = true;
            before = totals[chosen];
        }
        assertThat(removedUnits).doesNotContain(false);
        assertThat(before).isGreaterThan(1);
    }

    @ParameterizedTest
    @MethodSource("cases")
    void costsAddUpToTheLossOfTheRemainingWeights(Case of) {
        int count = of.layers().get(0).units().size() / 2;
        Damping damping = Problems.damping(SHARE);
        for (GreedyRemoval.Rule rule : List.of(
                GreedyRemoval.Rule.EXACT, GreedyRemoval.Rule.GROUPED_CHOLESKY, GreedyRemoval.Rule.DYNAMIC_GROUPS)) {
            RemovalOrder removal = GreedyRemoval.of(of.layers(), count, rule, damping);
            boolean[] removedUnits = new boolean[of.layers().get(0).units().size()];
            IntStream.of(removal.order()).forEach(unit -> removedUnits[unit] = true);
            double total = 0;
            for (LayerProblem layer : of.layers()) {
                boolean[] removed = channels(layer, removedUnits);
                int[] kept = IntStream.range(0, removed.length)
                        .filter(i -> !removed[i])
                        .toArray();
                try (Matrix weights = LeastSquares.keep(layer.a(), layer.w(), kept, damping)) {
                    RealMatrix change = Problems.real(weights).subtract(Problems.real(layer.w()));
                    total += Problems.loss(Problems.damped(layer.a(), SHARE), change, layer.g());
                }
            }

            assertThat(DoubleStream.of(removal.costs()).sum()).isCloseTo(total, within(1e-9 * total));
        }
    }

    /** SlimGPT's released loop (arXiv 2412.18110): invert, score, remove a group, compensate, repeat. */
    @Test
    void groupsOfChannelsMatchTheReleasedLoop() {
        int n = 700;
        int count = 660;
        Random random = new Random(11);
        try (Matrix x = Problems.matrix(Problems.random(random, 2 * n, n));
                Matrix a = Matrix.zeros(n, n);
                Matrix w = Problems.matrix(Problems.random(random, n, 3))) {
            Blas.rankUpdate(1, x, true, 0, a);
            Blas.mirror(a);
            List<int[]> units =
                    IntStream.range(0, n).mapToObj(i -> new int[] {i}).toList();
            int[] order = GreedyRemoval.of(
                            List.of(new LayerProblem(a, w, null, units)),
                            count,
                            GreedyRemoval.Rule.DYNAMIC_GROUPS,
                            Problems.damping(SHARE))
                    .order();

            Set<Integer> remaining = new TreeSet<>(IntStream.range(0, n).boxed().toList());
            int removed = 0;
            int[] groups = {74, 64, 64, 64, 64, 64, 64, 64, 64, 64, 10};
            for (int group : groups) {
                int[] kept = remaining.stream().mapToInt(Integer::intValue).toArray();
                double[] scores = releasedScores(a, w, kept);
                Set<Integer> expected = IntStream.range(0, kept.length)
                        .boxed()
                        .sorted(Comparator.comparingDouble(i -> scores[i]))
                        .limit(group)
                        .map(i -> kept[i])
                        .collect(Collectors.toCollection(TreeSet::new));
                Set<Integer> found = IntStream.of(order)
                        .skip(removed)
                        .limit(group)
                        .boxed()
                        .collect(Collectors.toCollection(TreeSet::new));
                assertThat(found).isEqualTo(expected);
                remaining.removeAll(found);
                removed += group;
            }
            assertThat(removed).isEqualTo(count);
        }
    }

    private static double[] releasedScores(Matrix a, Matrix w, int[] kept) {
        double lambda = SHARE * Damping.meanDiagonal(a);
        double[] scores = new double[kept.length];
        try (Matrix inverse = a.select(kept, kept);
                Matrix weights = LeastSquares.keep(a, w, kept, Problems.damping(SHARE))) {
            for (int i = 0; i < kept.length; i++) {
                inverse.add(i, i, lambda);
            }
            assertThat(Cholesky.factor(inverse)).isTrue();
            Cholesky.invert(inverse);
            for (int i = 0; i < kept.length; i++) {
                for (int j = 0; j < w.columns(); j++) {
                    scores[i] += Math.pow(weights.get(kept[i], j), 2) / inverse.get(i, i);
                }
            }
        }
        return scores;
    }

    @Test
    void deadChannelsCostNothingAndAreRemovedFirst() {
        LayerProblem layer = Problems.layer(new Random(3), 3, false, 0, 1, 1, 1, 1, 1, 1);
        for (int dead : new int[] {1, 4}) {
            for (int j = 0; j < 6; j++) {
                layer.a().set(dead, j, 0);
                layer.a().set(j, dead, 0);
            }
        }

        RemovalOrder removal = GreedyRemoval.of(List.of(layer), 6, GreedyRemoval.Rule.EXACT, Problems.damping(0));

        int[] first = IntStream.of(removal.order())
                .limit(2)
                .map(unit -> layer.units().get(unit)[0])
                .sorted()
                .toArray();
        assertThat(first).containsExactly(1, 4);
        assertThat(removal.costs()).startsWith(0.0, 0.0);
        assertThat(DoubleStream.of(removal.costs()).skip(2)).allMatch(cost -> cost > 0);
    }

    @Test
    void dampingIsRaisedWhenTheSecondMomentIsSingular() {
        RecordedLog log = new RecordedLog();
        LayerProblem layer = indefinite(0.05);

        RemovalOrder removal = GreedyRemoval.of(
                List.of(layer), 1, GreedyRemoval.Rule.EXACT, new Damping(0.001, 2, "blocks.0.ffn", log));

        assertThat(removal.damping()).isCloseTo(0.1, within(1e-12));
        assertThat(log.warnings()).singleElement().asString().contains("blocks.0.ffn", "2 tokens", "0.001", "0.1");
    }

    @Test
    void aSecondMomentThatCannotBeInvertedIsNamed() {
        assertThatThrownBy(() -> GreedyRemoval.of(
                        List.of(indefinite(50)),
                        1,
                        GreedyRemoval.Rule.EXACT,
                        new Damping(0.01, 2, "blocks.0.ffn", new RecordedLog())))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("blocks.0.ffn")
                .hasMessageContaining("3 channels over 2 tokens")
                .hasMessageContaining("at least 3 tokens")
                .hasMessageContaining("damping 10");
    }

    @Test
    void numbersThatAreNotFiniteAreNamed() {
        for (double bad : new double[] {Double.NaN, Double.NEGATIVE_INFINITY}) {
            LayerProblem layer = Problems.layer(new Random(3), 2, true, 0, 1, 1, 1);
            layer.w().set(2, 1, bad);

            assertThatThrownBy(() ->
                            GreedyRemoval.of(List.of(layer), 1, GreedyRemoval.Rule.EXACT, Problems.damping(SHARE)))
                    .isInstanceOf(UserException.class)
                    .hasMessage("layer: the weight has numbers that are not finite");
        }
    }

    /** A second moment of three channels, two of them almost equal; the least eigenvalue is about {@code -excess}. */
    private static LayerProblem indefinite(double excess) {
        double[][] a = {{1, 1 + excess, 0}, {1 + excess, 1, 0}, {0, 0, 1}};
        return new LayerProblem(
                Matrix.of(a), Matrix.of(new double[][] {{1}, {2}, {3}}), null, List.of(new int[] {0}, new int[] {1}));
    }

    private static double exactCost(List<LayerProblem> layers, boolean[] removedUnits) {
        double sum = 0;
        for (LayerProblem layer : layers) {
            RealMatrix a = Problems.damped(layer.a(), SHARE);
            sum += Problems.loss(a, Problems.bestChange(a, layer, channels(layer, removedUnits)), layer.g());
        }
        return sum;
    }

    private static boolean[] channels(LayerProblem layer, boolean[] removedUnits) {
        boolean[] removed = new boolean[layer.a().rows()];
        for (int unit = 0; unit < removedUnits.length; unit++) {
            for (int channel : layer.units().get(unit)) {
                removed[channel] = removedUnits[unit];
            }
        }
        return removed;
    }
}
