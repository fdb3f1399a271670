// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Role;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.PriorityQueue;
import java.util.function.ToDoubleFunction;

/**
 * Prunes units of dimensions until the size differs from the target by at most half a unit of the smallest kind. A
 * step's effect depends on the other dimensions: a narrower hidden width makes every channel cheaper. So each step is
 * counted on the model as it then is.
 */
final class GreedyAllocator {
    private static final int BISECTIONS = 60;

    private final List<TiedDimensions> groups;
    private final RunningCount running;
    private final Budget budget;
    private final double target;
    private LayerRatios ratios;
    private double level;

    /**
     * A possible step in the queue.
     *
     * @param group the dimensions that would shrink
     * @param key steps with smaller keys are taken first
     * @param order decides between equal keys
     */
    private record Step(TiedDimensions group, double key, int order) {}

    GreedyAllocator(List<TiedDimensions> groups, RunningCount running, Budget budget, double target) {
        this.groups = groups.stream().filter(group -> group.lastPosition() > 0).toList();
        this.running = running;
        this.budget = budget;
        this.target = target;
    }

    void run() {
        if (groups.isEmpty()) {
            return;
        }
        approach();
        if (budget.currency().isLimit()) {
            keepLimit();
        }
    }

    /** Comes as near to the target as the smallest unit allows, above or below. */
    private void approach() {
        if (budget.scope() == Budget.Scope.GLOBAL) {
            fill(groups, this::score);
            overshootAndRestore();
            return;
        }
        double half = smallestUnit() / 2;
        ratios = LayerRatios.uniform(groups);
        double same = exactLevel();
        ratios = LayerRatios.of(budget.schedule(), groups, same);
        fillLocally(exactLevel());
        double missed = Math.abs(excess());
        if (missed > half) {
            // Rounding the coarse kinds missed the target by more than the finest kind can correct.
            List<Integer> exact = groups.stream().map(TiedDimensions::position).toList();
            double coarse = largestLevel(groups, half);
            groups.forEach(group -> group.moveTo(0, running));
            fillLocally(coarse);
            if (Math.abs(excess()) >= missed) {
                restore(exact);
            }
        }
    }

    private void fillLocally(double exact) {
        level = exact;
        pruneByRatios();
        fill(groups, this::excessRatio);
        overshootAndRestore();
    }

    private void restore(List<Integer> positions) {
        for (int i = 0; i < positions.size(); i++) {
            groups.get(i).moveTo(positions.get(i), running);
        }
    }

    /** The size still to be pruned; negative when too much is pruned. */
    private double excess() {
        return budget.measure(running.size()) - target;
    }

    /**
     * Takes what is still above a limit by the smallest step that is enough. Then it gives back what fits below the limit.
     */
    private void keepLimit() {
        while (excess() > 0) {
            double needed = excess();
            TiedDimensions least = groups.stream()
                    .filter(group -> group.canShrink() && loss(group) > 0)
                    .min(Comparator.comparing((TiedDimensions group) -> loss(group) < needed)
                            .thenComparingDouble(group -> loss(group) < needed ? -loss(group) : loss(group))
                            .thenComparingDouble(this::key))
                    .orElse(null);
            if (least == null) {
                return;
            }
            least.moveTo(least.position() + 1, running);
        }
        restoreUnits(null);
    }

    /** The value by which groups are compared: the group with the smallest one takes the next step. */
    private double key(TiedDimensions group) {
        return budget.scope() == Budget.Scope.GLOBAL ? score(group) : excessRatio(group);
    }

    private double loss(TiedDimensions group) {
        return budget.measure(group.nextLoss(running));
    }

    /** Units of what has gone with another unit, such as channels of an expert, free nothing and do not count. */
    private double smallestUnit() {
        return groups.stream()
                .filter(TiedDimensions::canShrink)
                .mapToDouble(this::loss)
                .filter(loss -> loss > 0)
                .min()
                .orElse(0);
    }

    /** The score of the next step of a group, by which groups are compared. */
    private double score(TiedDimensions group) {
        return budget.rank() == Budget.Rank.SCORE ? group.stepScore(group.position()) : scorePerCost(group);
    }

    /** What a step costs nothing for is compared by its score alone. */
    private double scorePerCost(TiedDimensions group) {
        double cost = loss(group);
        return group.stepScore(group.position()) / (cost > 0 ? cost : 1);
    }

    /** The ratio that a group will have lost after one more unit, minus the ratio that it should lose. */
    private double excessRatio(TiedDimensions group) {
        return 1 - (group.count() - 1.0) / group.size() - ratios.of(group, level);
    }

    /** Takes the step with the smallest key repeatedly. A group is left out when its next step is too large. */
    private void fill(List<TiedDimensions> from, ToDoubleFunction<TiedDimensions> key) {
        boolean moved = true;
        while (moved) {
            moved = false;
            double half = smallestUnit() / 2;
            PriorityQueue<Step> queue =
                    new PriorityQueue<>(Comparator.comparingDouble(Step::key).thenComparingInt(Step::order));
            for (int i = 0; i < from.size(); i++) {
                if (from.get(i).canShrink()) {
                    queue.add(new Step(from.get(i), key.applyAsDouble(from.get(i)), i));
                }
            }
            while (!queue.isEmpty() && excess() >= half) {
                Step step = queue.poll();
                double loss = loss(step.group);
                if (loss > 0 && loss <= excess() + half) {
                    step.group.moveTo(step.group.position() + 1, running);
                    moved = true;
                    if (step.group.canShrink()) {
                        queue.add(new Step(step.group, key.applyAsDouble(step.group), step.order));
                    }
                }
            }
        }
    }

    /**
     * Prunes every dimension by its ratio. Coarse kinds (heads) are rounded to the nearest count. The finest kind
     * (channels) takes up the difference, with each of its dimensions within one step of the others.
     */
    private void pruneByRatios() {
        double half = smallestUnit() / 2;
        List<List<TiedDimensions>> kinds = coarseToFine();
        List<TiedDimensions> finest = kinds.get(kinds.size() - 1);
        setLevel(groups, level);
        for (List<TiedDimensions> kind : kinds.subList(0, kinds.size() - 1)) {
            List<Integer> floor = kind.stream().map(TiedDimensions::position).toList();
            kind.forEach(group -> group.moveTo(group.nearest(wanted(group, level)), running));
            // The finest kind can only restore its pruned units. If that is not enough, the coarse kind is not rounded
            // up.
            finest.forEach(group -> group.moveTo(0, running));
            if (excess() < -half) {
                for (int i = 0; i < kind.size(); i++) {
                    kind.get(i).moveTo(floor.get(i), running);
                }
            }
            setLevel(finest, level);
        }
        setLevel(finest, largestLevel(finest, half));
        List<TiedDimensions> leastFirst = new ArrayList<>(finest);
        leastFirst.sort(Comparator.comparingDouble(this::scorePerCostIfAny));
        for (TiedDimensions group : leastFirst) {
            if (group.canShrink() && loss(group) <= excess() + half) {
                group.moveTo(group.position() + 1, running);
            }
        }
    }

    private double scorePerCostIfAny(TiedDimensions group) {
        return group.canShrink() ? scorePerCost(group) : Double.MAX_VALUE;
    }

    /** The level at which the target would be met if fractions of units could be pruned. */
    private double exactLevel() {
        double low = ratios.lowest();
        double high = ratios.highest();
        for (int i = 0; i < BISECTIONS; i++) {
            double middle = (low + high) / 2;
            if (sizeAt(middle) >= target) {
                low = middle;
            } else {
                high = middle;
            }
        }
        return low;
    }

    private double sizeAt(double some) {
        Map<Dim.Atom, Double> units = new HashMap<>();
        for (TiedDimensions group : groups) {
            double kept = Math.max(group.least(), wanted(group, some));
            group.dimensions().forEach(dimension -> units.put(dimension.atom(), kept));
        }
        return running.amountWith(units);
    }

    /** The number of units that a group should keep, not rounded. */
    private double wanted(TiedDimensions group, double at) {
        return group.size() * (1 - ratios.of(group, at));
    }

    /** The largest level that {@code some} can have without missing the target by more than {@code tolerance}. */
    private double largestLevel(List<TiedDimensions> some, double tolerance) {
        double low = ratios.lowest();
        double high = ratios.highest();
        for (int i = 0; i < BISECTIONS; i++) {
            double middle = (low + high) / 2;
            setLevel(some, middle);
            if (excess() >= -tolerance) {
                low = middle;
            } else {
                high = middle;
            }
        }
        setLevel(some, ratios.highest());
        return excess() >= -tolerance ? ratios.highest() : low;
    }

    private void setLevel(List<TiedDimensions> some, double at) {
        some.forEach(group -> group.moveTo(group.atLeast(wanted(group, at)), running));
    }

    private List<List<TiedDimensions>> coarseToFine() {
        Map<Role, List<TiedDimensions>> kinds = new LinkedHashMap<>();
        Map<Role, Double> costs = new LinkedHashMap<>();
        for (TiedDimensions group : groups) {
            kinds.computeIfAbsent(group.role(), key -> new ArrayList<>()).add(group);
            costs.merge(group.role(), firstLoss(group), Math::max);
        }
        List<Role> order = new ArrayList<>(kinds.keySet());
        order.sort(Comparator.comparing(costs::get).reversed());
        return order.stream().map(kinds::get).toList();
    }

    /** What the first step of a group frees. */
    private double firstLoss(TiedDimensions group) {
        int position = group.position();
        group.moveTo(0, running);
        double loss = loss(group);
        group.moveTo(position, running);
        return loss;
    }

    /**
     * Handles a target that no further step fits although too much remains, because the fine units are used up. It
     * takes the cheapest coarse step and restores fine units, the most important first.
     */
    private void overshootAndRestore() {
        List<Integer> before = groups.stream().map(TiedDimensions::position).toList();
        double error = excess();
        double half = smallestUnit() / 2;
        TiedDimensions overshot = error <= half
                ? null
                : groups.stream()
                        .filter(TiedDimensions::canShrink)
                        .min(Comparator.comparingDouble(this::loss))
                        .orElse(null);
        if (overshot != null) {
            overshot.moveTo(overshot.position() + 1, running);
        }
        restoreUnits(overshot);
        if (Math.abs(excess()) > Math.abs(error)) {
            restore(before);
        }
    }

    private void restoreUnits(TiedDimensions except) {
        while (excess() < 0) {
            TiedDimensions best = null;
            double bestScore = Double.NEGATIVE_INFINITY;
            for (TiedDimensions group : groups) {
                if (group != except && group.canGrow()) {
                    double score = scoreOfLastStep(group);
                    if (score > bestScore) {
                        best = group;
                        bestScore = score;
                    }
                }
            }
            if (best == null) {
                return;
            }
            best.moveTo(best.position() - 1, running);
        }
    }

    /**
     * The score of a group's last step; negative infinity if undoing it would not bring the size closer to the target.
     */
    private double scoreOfLastStep(TiedDimensions group) {
        double error = Math.abs(excess());
        group.moveTo(group.position() - 1, running);
        boolean limit = budget.currency().isLimit();
        boolean nearer = Math.abs(excess()) < error && !(limit && excess() > 0);
        double score = key(group);
        group.moveTo(group.position() + 1, running);
        return nearer ? score : Double.NEGATIVE_INFINITY;
    }
}
