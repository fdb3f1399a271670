// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.Deque;
import java.util.List;
import java.util.function.ToDoubleFunction;
import java.util.stream.IntStream;

/**
 * Removes units one after another and says in which order and at what cost: Optimal Brain Surgeon on the inputs of layers
 * (Hassibi et al., NeurIPS 1993; on structures: ZipLM, arXiv 2302.04089), the remaining weights being the best ones at any
 * time.
 */
public final class GreedyRemoval {
    /** How the next unit is chosen; what is reported as cost is exact, but for the rules that look at each unit by itself. */
    public enum Rule {
        /** The unit whose removal costs least now. */
        EXACT,
        /**
         * SlimGPT's choice of heads ("grouped Cholesky", arXiv 2412.18110): the channels of a unit are scored as if those before
         * them in the unit were gone but the weights had not been updated. The same as exact for units of one channel.
         */
        GROUPED_CHOLESKY,
        /**
         * SlimGPT's choice of FFN channels ("dynamic group size", the same paper): exact costs, but computed once for a group of
         * units that go together; groups shrink as the end comes nearer.
         */
        DYNAMIC_GROUPS,
        /** All units at once by what each costs if it alone goes and the others make up for it (LLM Surgeon, arXiv 2312.17244). */
        ALONE,
        /** All at once by what each costs if it alone goes and nothing makes up for it (K-OBD where {@code g} is given). */
        OBD,
        /** The same by the diagonal of {@code a} alone (L-OBD where {@code g} is not given). */
        OBD_DIAGONAL;

        /** Whether each unit is looked at by itself, so that costs of several layers can be computed one after the other. */
        public boolean isSeparate() {
            return this == ALONE || this == OBD || this == OBD_DIAGONAL;
        }
    }

    private final List<Downdate> layers = new ArrayList<>();
    private final Rule rule;
    private final boolean[] gone;
    private final int[] order;
    private final double[] costs;
    private final Deque<Integer> next = new ArrayDeque<>();
    private int groupSize;

    private GreedyRemoval(int units, int count, Rule rule) {
        this.rule = rule;
        gone = new boolean[units];
        order = new int[count];
        costs = new double[count];
        groupSize = (count - 512) / 2;
    }

    /**
     * Removes {@code count} units.
     *
     * <p>Memory is two matrices of float64 of the size of {@code a} for each consumer, and a copy of its weights for a while;
     * time is that of about {@code 2 n³ + n² out} operations for half of n single channels.
     *
     * @param consumers the layers that read the dimension, with the same number of units; their costs add up
     * @throws io.onnxprune.diag.UserException when a number is not finite or a second moment cannot be inverted
     */
    public static RemovalOrder of(List<LayerProblem> consumers, int count, Rule rule, Damping damping) {
        int units = consumers.get(0).units().size();
        for (LayerProblem consumer : consumers) {
            damping.checkFinite(consumer.a(), "second moment of the inputs");
            damping.checkFinite(consumer.w(), "weight");
            damping.checkFinite(consumer.g(), "second moment of the gradients");
            if (consumer.units().size() != units) {
                throw new IllegalArgumentException("consumers have different numbers of units");
            }
        }
        if (count < 0 || count > units) {
            throw new IllegalArgumentException(count + " of " + units + " units");
        }
        int channels = consumers.stream().mapToInt(c -> c.a().rows()).max().orElseThrow();
        return damping.raise(
                channels,
                share -> rule.isSeparate()
                        ? IndependentRemoval.run(consumers, count, rule, share)
                        : new GreedyRemoval(units, count, rule).run(consumers, share, damping));
    }

    private RemovalOrder run(List<LayerProblem> consumers, double share, Damping damping) {
        try {
            long start = System.nanoTime();
            for (LayerProblem consumer : consumers) {
                layers.add(new Downdate(consumer, share * Damping.meanDiagonal(consumer.a())));
            }
            long inverted = System.nanoTime();
            for (int i = 0; i < order.length; i++) {
                if (next.isEmpty()) {
                    choose(order.length - i);
                }
                int unit = next.remove();
                gone[unit] = true;
                order[i] = unit;
                costs[i] = sum(layer -> layer.remove(unit));
            }
            damping.log()
                    .debug(
                            "%s: inverse in %.2f s, %d of %d units removed in %.2f s, largest relative error noticed %.1e"
                                    .formatted(
                                            damping.label(),
                                            (inverted - start) / 1e9,
                                            order.length,
                                            gone.length,
                                            (System.nanoTime() - inverted) / 1e9,
                                            layers.stream()
                                                    .mapToDouble(Downdate::worstDrift)
                                                    .max()
                                                    .orElse(0)));
            return new RemovalOrder(order, costs, share);
        } finally {
            layers.forEach(Downdate::close);
        }
    }

    private double sum(ToDoubleFunction<Downdate> cost) {
        return layers.stream().mapToDouble(cost).sum();
    }

    /** Fills the queue with what goes next, at most {@code remaining} units. */
    private void choose(int remaining) {
        double[] scores = new double[gone.length];
        layers.forEach(layer -> layer.addCosts(scores, rule == Rule.GROUPED_CHOLESKY));
        int size = 1;
        if (rule == Rule.DYNAMIC_GROUPS) {
            size = Math.min(remaining, Math.min(1024, Math.max(groupSize, 64)));
            groupSize = (groupSize - 512) / 2;
        }
        if (size > 1) {
            IntStream.range(0, gone.length)
                    .filter(unit -> !gone[unit])
                    .boxed()
                    .sorted(Comparator.comparingDouble(unit -> scores[unit]))
                    .limit(size)
                    .forEach(next::add);
            return;
        }
        int best = -1;
        for (int unit = 0; unit < gone.length; unit++) {
            if (!gone[unit] && (best < 0 || scores[unit] < scores[best])) {
                best = unit;
            }
        }
        next.add(best);
    }
}
