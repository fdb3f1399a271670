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
 * Chooses the input units of linear layers to prune, one after another, with the cost of each. This is Optimal Brain
 * Surgeon on layer inputs (Hassibi and Stork, NeurIPS 1992; for
 * structures: ZipLM, arXiv 2302.04089). After each removal the remaining weights are the optimal ones.
 */
public final class GreedyRemoval {
    /** The rule that chooses the next unit. Reported costs are exact, except for the rules of independent removal. */
    public enum Rule {
        /** The unit whose removal costs least, given the removals before it. */
        EXACT,
        /**
         * SlimGPT's choice of heads ("grouped Cholesky", arXiv 2412.18110). Each channel of a unit is scored as if the
         * channels before it in the unit were removed but the weights were not updated. Equal to {@link #EXACT} for
         * units of one channel.
         */
        GROUPED_CHOLESKY,
        /**
         * SlimGPT's choice of FFN channels ("dynamic group size", arXiv 2412.18110). Costs are exact but computed once
         * for a group of units that are removed together. Groups become smaller towards the end.
         */
        DYNAMIC_GROUPS,
        /**
         * All units at once, each by the cost of removing only it while the others are updated to compensate (LLM
         * Surgeon, arXiv 2312.17244).
         */
        INDEPENDENT,
        /**
         * All units at once, each by the cost of removing only it without compensation (K-OBD when {@code g} is given).
         */
        OBD,
        /**
         * All units at once, each by the cost of removing only it without compensation, using only the diagonal of
         * {@code a} (L-OBD when {@code g} is not given).
         */
        OBD_DIAGONAL;

        /**
         * Whether each unit is scored independently of the others, so that costs of several layers can be computed one
         * layer at a time.
         */
        public boolean isIndependent() {
            return this == INDEPENDENT || this == OBD || this == OBD_DIAGONAL;
        }
    }

    private final List<Downdate> layers = new ArrayList<>();
    private final Rule rule;
    private final boolean[] removed;
    private final int[] order;
    private final double[] costs;
    private final Deque<Integer> next = new ArrayDeque<>();
    private int groupSize;

    private GreedyRemoval(int units, int count, Rule rule) {
        this.rule = rule;
        removed = new boolean[units];
        order = new int[count];
        costs = new double[count];
        groupSize = (count - 512) / 2;
    }

    /**
     * Chooses {@code count} units to remove from linear layers that share them.
     *
     * <p>Memory: two float64 matrices of the size of {@code a} for each consumer, and for a while a copy of its
     * weights. Time: about {@code 2 n³ + n² out} operations to remove half of n units of one channel.
     *
     * @param consumers the linear layers that consume the pruned dimension, with the same number of units; their costs
     *     are added
     * @param count number of units to remove
     * @throws IllegalArgumentException when the consumers have different numbers of units or {@code count} is out of
     *     range
     * @throws io.onnxprune.diag.UserException when a value is not finite or a second moment cannot be inverted
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
                share -> rule.isIndependent()
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
                    enqueueNext(order.length - i);
                }
                int unit = next.remove();
                removed[unit] = true;
                order[i] = unit;
                costs[i] = sum(layer -> layer.remove(unit));
            }
            damping.log()
                    .debug(
                            "%s: on %s, inverse in %.2f s, %d of %d units removed in %.2f s, largest relative residual %.1e"
                                    .formatted(
                                            damping.label(),
                                            layers.get(0).place(),
                                            (inverted - start) / 1e9,
                                            order.length,
                                            removed.length,
                                            (System.nanoTime() - inverted) / 1e9,
                                            layers.stream()
                                                    .mapToDouble(Downdate::worstResidual)
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

    /** Fills the queue with the units to remove next, at most {@code remaining} of them. */
    private void enqueueNext(int remaining) {
        double[] scores = new double[removed.length];
        layers.forEach(layer -> layer.addCosts(scores, rule == Rule.GROUPED_CHOLESKY));
        int size = 1;
        if (rule == Rule.DYNAMIC_GROUPS) {
            size = Math.min(remaining, Math.min(1024, Math.max(groupSize, 64)));
            groupSize = (groupSize - 512) / 2;
        }
        if (size > 1) {
            IntStream.range(0, removed.length)
                    .filter(unit -> !removed[unit])
                    .boxed()
                    .sorted(Comparator.comparingDouble(unit -> scores[unit]))
                    .limit(size)
                    .forEach(next::add);
            return;
        }
        int best = -1;
        for (int unit = 0; unit < removed.length; unit++) {
            if (!removed[unit] && (best < 0 || scores[unit] < scores[best])) {
                best = unit;
            }
        }
        next.add(best);
    }
}
