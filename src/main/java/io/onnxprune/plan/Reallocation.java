// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.ResidualStream.Block;
import io.onnxprune.dims.Structure;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.Collections;
import java.util.Comparator;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.function.Predicate;
import java.util.stream.IntStream;

/**
 * The allocations that meet one budget, and the ways from one to another. A place is a dimension that can lose units in
 * the order of its scores (or several that are tied). A residual block is a place with two levels: it stays, or it goes
 * with everything in it. Units and blocks that an earlier plan pruned never come back. Not thread-safe.
 */
public final class Reallocation {
    /**
     * One allocation.
     *
     * @param levels for each place, how many steps it has taken
     * @param gone positions in {@link PrunableBlocks#blocks} of the blocks that go
     */
    public record Point(List<Integer> levels, Set<Integer> gone) {
        public Point {
            levels = List.copyOf(levels);
            gone = Collections.unmodifiableSet(new TreeSet<>(gone));
        }
    }

    private final Structure structure;
    private final Plan start;
    private final Plan past;
    private final Budget budget;
    private final double target;
    private final ParameterCount count;
    private final RunningCount running;
    private final Candidates candidates;
    private final List<TiedDimensions> places;
    private final List<Integer> lowest = new ArrayList<>();
    private final List<int[]> blocks;
    private final BitSet goneBefore;
    private final double tolerance;

    /**
     * The allocations around a plan.
     *
     * @param past what is pruned already
     * @param start a plan that meets the budget
     */
    public record Around(Plan past, Plan start) {}

    /**
     * Prepares the allocations that meet {@code budget}.
     *
     * @param scores of the units that {@code around.past()} left, which say in which order they go
     * @param movable the dimensions whose number of units may differ from that of the plan
     * @throws io.onnxprune.diag.UserException as {@link Allocation#of}
     */
    public Reallocation(
            Structure structure, Scores scores, Budget budget, Around around, Predicate<Dimension> movable) {
        Allocator allocator = new Allocator(structure, scores.after(around.past, structure), budget, Log.NONE);
        this.structure = structure;
        this.start = around.start;
        this.past = around.past;
        this.budget = budget.withScope(Budget.Scope.GLOBAL);
        this.count = ParameterCount.of(structure);
        this.target = budget.target(count.dense());
        this.running = count.start();
        this.candidates = allocator.candidates();
        this.blocks = PrunableBlocks.blocks(structure);
        this.goneBefore = removed(past);
        running.remove(goneBefore);
        this.places = allocator.groups(candidates, running).stream()
                .filter(group ->
                        group.canShrink() && group.dimensions().stream().allMatch(movable))
                .toList();
        keepOthers();
        for (TiedDimensions place : places) {
            lowest.add(place.atLeast(past.kept(place.dimensions().get(0)).length));
        }
        apply(start());
        double finest = places.stream()
                .filter(TiedDimensions::canShrink)
                .mapToDouble(this::nextLoss)
                .filter(loss -> loss > 0)
                .min()
                .orElse(0);
        this.tolerance = Math.max(finest / 2, Math.abs(excess()));
    }

    /** Dimensions that are no places keep what the plan keeps. */
    private void keepOthers() {
        Set<Dimension> own = new HashSet<>();
        places.forEach(place -> own.addAll(place.dimensions()));
        for (Dimension dimension : structure.dimensions()) {
            int[] kept = start.keep().get(dimension.name());
            if (kept != null && !own.contains(dimension)) {
                running.keep(dimension, kept.length);
            }
        }
    }

    private BitSet removed(Plan plan) {
        List<Block> all = structure.stream().blocks();
        BitSet removed = new BitSet();
        IntStream.range(0, all.size())
                .filter(index -> plan.removesBlock(index, all.get(index).layer()))
                .forEach(removed::set);
        return removed;
    }

    /** The allocation of the plan. */
    public Point start() {
        List<Integer> levels = places.stream()
                .map(place -> place.atLeast(start.kept(place.dimensions().get(0)).length))
                .toList();
        BitSet removed = removed(start);
        removed.andNot(goneBefore);
        Set<Integer> gone = new TreeSet<>();
        for (int position = 0; position < blocks.size(); position++) {
            if (removed.get(blocks.get(position)[0])) {
                gone.add(position);
            }
        }
        return new Point(levels, gone);
    }

    /** The number of places that are dimensions. */
    public int size() {
        return places.size();
    }

    /** The mean size of a place in the measure of the budget, as the earlier plan left it. */
    public double meanSize() {
        apply(new Point(lowest, Set.of()));
        double whole = budget.measure(running.size());
        for (TiedDimensions place : places) {
            place.moveTo(place.lastPosition(), running);
        }
        return (whole - budget.measure(running.size())) / Math.max(1, places.size());
    }

    /**
     * The blocks that may go beside those of {@code from}, as positions in {@link PrunableBlocks#blocks}. At least one
     * block stays, and one with a cache where lengths are computed from it.
     */
    public List<Integer> removable(Point from) {
        BitSet gone = indices(from.gone);
        List<Integer> open = candidates.blocks().stream()
                .filter(position -> !gone.get(blocks.get(position)[0]))
                .toList();
        long present = blocks.stream().filter(block -> !gone.get(block[0])).count();
        return present <= 1
                ? List.of()
                : open.stream()
                        .filter(position -> !candidates
                                .withLengths(List.of(position), blocks, gone)
                                .isEmpty())
                        .toList();
    }

    /** The residual blocks of a position, as indices into the residual stream. */
    public int[] block(int position) {
        return blocks.get(position).clone();
    }

    private BitSet indices(Set<Integer> gone) {
        BitSet indices = (BitSet) goneBefore.clone();
        gone.forEach(position -> indices.or(ParameterCount.bits(blocks.get(position))));
        return indices;
    }

    private void apply(Point point) {
        running.remove(indices(point.gone));
        for (int i = 0; i < places.size(); i++) {
            places.get(i).moveTo(point.levels.get(i), running);
        }
    }

    private Point current(Set<Integer> gone) {
        return new Point(places.stream().map(TiedDimensions::position).toList(), gone);
    }

    private double excess() {
        return budget.measure(running.size()) - target;
    }

    private double nextLoss(TiedDimensions place) {
        return budget.measure(place.nextLoss(running));
    }

    /**
     * The allocation in which only one place differs by about {@code size}, at least one step. It misses the budget.
     *
     * @param size what the place loses, in the measure of the budget; negative for what it gets back
     * @return empty if the place cannot change in this direction
     */
    public Optional<Point> probe(Point from, int place, double size) {
        apply(from);
        double changed = size > 0 ? shrink(place, size) : grow(place, -size);
        return changed == 0 ? Optional.empty() : Optional.of(current(from.gone));
    }

    /** The size of the model under an allocation, in the measure of the budget. */
    public double measure(Point point) {
        apply(point);
        return budget.measure(running.size());
    }

    /** Takes one step or more until {@code size} is lost; returns what is lost. */
    private double shrink(int place, double size) {
        TiedDimensions at = places.get(place);
        double lost = 0;
        while (at.canShrink() && (lost == 0 || lost + nextLoss(at) / 2 <= size)) {
            double loss = nextLoss(at);
            if (loss <= 0) {
                break;
            }
            at.moveTo(at.position() + 1, running);
            lost += loss;
        }
        return lost;
    }

    /** Takes back one step or more until {@code size} has come back; returns what has. */
    private double grow(int place, double size) {
        TiedDimensions at = places.get(place);
        double gained = 0;
        while (at.position() > lowest.get(place)) {
            double before = budget.measure(running.size());
            at.moveTo(at.position() - 1, running);
            double step = budget.measure(running.size()) - before;
            if (gained > 0 && gained + step / 2 > size) {
                at.moveTo(at.position() + 1, running);
                break;
            }
            gained += step;
            if (step <= 0) {
                break;
            }
        }
        return gained;
    }

    /**
     * Moves about {@code size} of the budget from one place to another: {@code to} gets units back that {@code from} loses.
     * Single units of any place make up for what steps of unequal size leave.
     *
     * @return empty if this is not possible
     */
    public Optional<Point> moved(Point point, int from, int to, double size) {
        apply(point);
        if (from == to || shrink(from, size) == 0 || grow(to, size) == 0) {
            return Optional.empty();
        }
        if (excess() > tolerance) {
            shrink(from, excess());
        } else if (excess() < -tolerance) {
            grow(to, -excess());
        }
        return settled(point.gone).filter(found -> !found.equals(point));
    }

    /**
     * Lets a block go. The others get back what it frees beyond the budget, those units first that cost most.
     *
     * @return empty if this is not possible
     */
    public Optional<Point> without(Point point, int block) {
        Set<Integer> gone = new TreeSet<>(point.gone);
        gone.add(block);
        apply(new Point(point.levels, gone));
        return settled(gone);
    }

    /**
     * Takes a block back that went. The others lose what it needs, those units first that cost least.
     *
     * @return empty if this is not possible
     */
    public Optional<Point> with(Point point, int block) {
        Set<Integer> gone = new TreeSet<>(point.gone);
        gone.remove(block);
        apply(new Point(point.levels, gone));
        return settled(gone);
    }

    /** The size that one step back of a place adds. */
    private double nextGain(int place) {
        int position = places.get(place).position();
        double gain = grow(place, 1);
        places.get(place).moveTo(position, running);
        return gain;
    }

    /** Meets the budget by single units; empty if that is not possible. */
    private Optional<Point> settled(Set<Integer> gone) {
        new GreedyAllocator(places, running, budget, target).run();
        if (excess() < -tolerance) {
            // Only coarse units are left to take back.
            IntStream.range(0, places.size())
                    .filter(place -> nextGain(place) > 0)
                    .boxed()
                    .max(Comparator.comparingDouble(place ->
                            places.get(place).stepScore(places.get(place).position() - 1)))
                    .ifPresent(place -> grow(place, 1));
        }
        if (excess() > tolerance) {
            // A coarse unit that came back is more than was free: fine ones go for it.
            new GreedyAllocator(places, running, budget, target).run();
        }
        return Math.abs(excess()) <= tolerance ? Optional.of(current(gone)) : Optional.empty();
    }

    /** The plan of an allocation. */
    public Plan plan(Point point) {
        apply(point);
        Map<String, int[]> keep = new LinkedHashMap<>(start.keep());
        for (TiedDimensions place : places) {
            for (int i = 0; i < place.dimensions().size(); i++) {
                keep.put(place.dimensions().get(i).name(), place.kept(i));
            }
        }
        keep.entrySet()
                .removeIf(entry -> structure.dimensions().stream()
                        .anyMatch(dimension -> dimension.name().equals(entry.getKey())
                                && dimension.size() == entry.getValue().length));
        BitSet gone = indices(point.gone);
        Plan withoutBlocks = new Plan(start.model(), keep, past.layers(), kept(gone));
        keep.keySet().removeAll(count.removedDimensions(withoutBlocks));
        return new Plan(start.model(), keep, past.layers(), kept(gone));
    }

    private int[] kept(BitSet gone) {
        return gone.isEmpty()
                ? null
                : Allocator.kept(structure.stream().blocks().size(), gone);
    }
}
