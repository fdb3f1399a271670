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
 * Removes units of dimensions until the target is met within half a unit of the smallest kind. Sizes multiply (a
 * narrower hidden width makes every channel cheaper), so each step is counted on the model as it then is.
 */
final class GreedyAllocator {
    private static final int BISECTIONS = 60;

    private final List<TiedDimensions> tracks;
    private final ParameterCount.Running running;
    private final Budget budget;
    private final double target;
    private LayerRatios shares;
    private double level;

    /** A step that waits for its turn; {@code order} settles equal keys. */
    private record Step(TiedDimensions track, double key, int order) {}

    GreedyAllocator(List<TiedDimensions> tracks, ParameterCount.Running running, Budget budget, double target) {
        this.tracks = tracks.stream().filter(TiedDimensions::canShrink).toList();
        this.running = running;
        this.budget = budget;
        this.target = target;
    }

    void run() {
        if (tracks.isEmpty()) {
            return;
        }
        if (budget.scope() == Budget.Scope.GLOBAL) {
            fill(tracks, this::worth);
            overshootAndGiveBack();
            return;
        }
        double half = smallestUnit() / 2;
        shares = LayerRatios.uniform(tracks);
        double same = exactLevel();
        shares = LayerRatios.of(budget.schedule(), tracks, same);
        fillLocally(exactLevel());
        double missed = Math.abs(needed());
        if (missed > half) {
            // Rounding the coarse kinds up or down left more than the finest can make up for.
            List<Integer> exact = tracks.stream().map(TiedDimensions::position).toList();
            double coarse = largestLevel(tracks, half);
            tracks.forEach(track -> track.moveTo(0, running));
            fillLocally(coarse);
            if (Math.abs(needed()) >= missed) {
                restore(exact);
            }
        }
    }

    private void fillLocally(double exact) {
        level = exact;
        shareOut();
        fill(tracks, this::excessAfter);
        overshootAndGiveBack();
    }

    private void restore(List<Integer> positions) {
        for (int i = 0; i < positions.size(); i++) {
            tracks.get(i).moveTo(positions.get(i), running);
        }
    }

    /** What is still to be removed; negative when too much is gone. */
    private double needed() {
        return budget.measure(running.size()) - target;
    }

    private long loss(TiedDimensions track) {
        return budget.measure(track.nextLoss(running));
    }

    private double smallestUnit() {
        return tracks.stream()
                .mapToDouble(track -> track.canShrink() ? loss(track) : Double.MAX_VALUE)
                .min()
                .orElse(0);
    }

    /** What the next step of a track would lose, as units of different dimensions are compared. */
    private double worth(TiedDimensions track) {
        return budget.rank() == Budget.Rank.SCORE ? track.stepScore(track.position()) : scorePerParameter(track);
    }

    private double scorePerParameter(TiedDimensions track) {
        long parameters = Math.max(1, track.nextLoss(running).parameters());
        return track.stepScore(track.position()) / parameters;
    }

    /** How far the share that a track will have lost with one unit more is above what it should lose. */
    private double excessAfter(TiedDimensions track) {
        return 1 - (track.count() - 1.0) / track.size() - shares.of(track, level);
    }

    /** Takes the step with the smallest key, again and again; a track whose next step is too large is left out. */
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
            while (!queue.isEmpty() && needed() >= half) {
                Step step = queue.poll();
                if (loss(step.track) <= needed() + half) {
                    step.track.moveTo(step.track.position() + 1, running);
                    moved = true;
                    if (step.track.canShrink()) {
                        queue.add(new Step(step.track, key.applyAsDouble(step.track), step.order));
                    }
                }
            }
        }
    }

    /**
     * Takes its share from every dimension: the coarse kinds (heads) are rounded to it, the finest one (channels) makes
     * up the difference, each of its dimensions to within one step.
     */
    private void shareOut() {
        double half = smallestUnit() / 2;
        List<List<TiedDimensions>> kinds = coarseToFine();
        List<TiedDimensions> finest = kinds.get(kinds.size() - 1);
        setLevel(tracks, level);
        for (List<TiedDimensions> kind : kinds.subList(0, kinds.size() - 1)) {
            List<Integer> floor = kind.stream().map(TiedDimensions::position).toList();
            kind.forEach(track -> track.moveTo(track.nearest(wanted(track, level)), running));
            // The finest kind can only give back what it lost; beyond that, rounding up would miss the target.
            finest.forEach(track -> track.moveTo(0, running));
            if (needed() < -half) {
                for (int i = 0; i < kind.size(); i++) {
                    kind.get(i).moveTo(floor.get(i), running);
                }
            }
            setLevel(finest, level);
        }
        setLevel(finest, largestLevel(finest, half));
        List<TiedDimensions> leastFirst = new ArrayList<>(finest);
        leastFirst.sort(Comparator.comparingDouble(this::scorePerParameterIfAny));
        for (TiedDimensions track : leastFirst) {
            if (track.canShrink() && loss(track) <= needed() + half) {
                track.moveTo(track.position() + 1, running);
            }
        }
    }

    private double scorePerParameterIfAny(TiedDimensions track) {
        return track.canShrink() ? scorePerParameter(track) : Double.MAX_VALUE;
    }

    /** The level at which the target would be met if parts of a unit could go. */
    private double exactLevel() {
        double low = shares.lowest();
        double high = shares.highest();
        for (int i = 0; i < BISECTIONS; i++) {
            double middle = (low + high) / 2;
            if (leftAt(middle) >= target) {
                low = middle;
            } else {
                high = middle;
            }
        }
        return low;
    }

    private double leftAt(double some) {
        Map<Dim.Atom, Double> units = new HashMap<>();
        for (TiedDimensions track : tracks) {
            double left = Math.max(track.least(), wanted(track, some));
            track.dimensions().forEach(dimension -> units.put(dimension.atom(), left));
        }
        return running.leftWith(units, budget.goal() == Budget.Goal.BYTES);
    }

    /** How many units a track should keep, parts included. */
    private double wanted(TiedDimensions track, double at) {
        return track.size() * (1 - shares.of(track, at));
    }

    /** The largest level that {@code some} can have without missing the target by more than {@code tolerance}. */
    private double largestLevel(List<TiedDimensions> some, double tolerance) {
        double low = shares.lowest();
        double high = shares.highest();
        for (int i = 0; i < BISECTIONS; i++) {
            double middle = (low + high) / 2;
            setLevel(some, middle);
            if (needed() >= -tolerance) {
                low = middle;
            } else {
                high = middle;
            }
        }
        setLevel(some, shares.highest());
        return needed() >= -tolerance ? shares.highest() : low;
    }

    private void setLevel(List<TiedDimensions> some, double at) {
        some.forEach(track -> track.moveTo(track.atLeast(wanted(track, at)), running));
    }

    private List<List<TiedDimensions>> coarseToFine() {
        Map<Role, List<TiedDimensions>> kinds = new LinkedHashMap<>();
        Map<Role, Long> costs = new LinkedHashMap<>();
        for (TiedDimensions track : tracks) {
            kinds.computeIfAbsent(track.role(), key -> new ArrayList<>()).add(track);
            costs.merge(track.role(), wholeLoss(track), Math::max);
        }
        List<Role> order = new ArrayList<>(kinds.keySet());
        order.sort(Comparator.comparing(costs::get).reversed());
        return order.stream().map(kinds::get).toList();
    }

    /** What the first step of a track frees. */
    private long wholeLoss(TiedDimensions track) {
        int position = track.position();
        track.moveTo(0, running);
        long loss = loss(track);
        track.moveTo(position, running);
        return loss;
    }

    /**
     * When nothing more fits but too much is left (the fine units are used up), takes the cheapest coarse step and
     * gives fine units back, the most important first.
     */
    private void overshootAndGiveBack() {
        List<Integer> before = tracks.stream().map(TiedDimensions::position).toList();
        double error = needed();
        double half = smallestUnit() / 2;
        TiedDimensions overshot = error <= half
                ? null
                : tracks.stream()
                        .filter(TiedDimensions::canShrink)
                        .min(Comparator.comparingLong(this::loss))
                        .orElse(null);
        if (overshot != null) {
            overshot.moveTo(overshot.position() + 1, running);
        }
        giveBack(overshot);
        if (Math.abs(needed()) > Math.abs(error)) {
            restore(before);
        }
    }

    private void giveBack(TiedDimensions except) {
        while (needed() < 0) {
            TiedDimensions best = null;
            double bestWorth = Double.NEGATIVE_INFINITY;
            for (TiedDimensions track : tracks) {
                if (track != except && track.canGrow()) {
                    double worth = worthOfLastStep(track);
                    if (worth > bestWorth) {
                        best = track;
                        bestWorth = worth;
                    }
                }
            }
            if (best == null) {
                return;
            }
            best.moveTo(best.position() - 1, running);
        }
    }

    /** How much a track's last step is missed; negative infinity if taking it back would not bring the target nearer. */
    private double worthOfLastStep(TiedDimensions track) {
        double error = Math.abs(needed());
        track.moveTo(track.position() - 1, running);
        boolean nearer = Math.abs(needed()) < error;
        double worth = budget.scope() == Budget.Scope.GLOBAL ? worth(track) : excessAfter(track);
        track.moveTo(track.position() + 1, running);
        return nearer ? worth : Double.NEGATIVE_INFINITY;
    }
}
