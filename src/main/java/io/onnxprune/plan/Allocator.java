// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Structure;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;

/** One run of {@link Allocation#of}. It first prunes layers and blocks as far as they fit, then units of dimensions. */
final class Allocator {
    private final Structure structure;
    private final Scores scores;
    private final Budget budget;
    private final Log log;
    private final ParameterCount count;
    private final double target;

    Allocator(Structure structure, Scores scores, Budget budget, Log log) {
        this.structure = structure;
        this.scores = scores;
        this.budget = budget;
        this.log = log;
        this.count = ParameterCount.of(structure, budget.currency());
        this.target = budget.target(count.dense());
    }

    Allocation run(String model) {
        if (target == budget.measure(count.dense())) {
            return new Allocation(Plan.keepAll(model), count.dense(), count.dense());
        }
        Candidates candidates = candidates();
        RunningCount running = count.start();
        int[] layers = dropLayers(candidates, running);
        int[] blocks = dropBlocks(candidates, layers, running);
        List<TiedDimensions> groups = groups(candidates, running);
        new GreedyAllocator(groups, running, budget, target).run();

        Map<String, int[]> keep = new LinkedHashMap<>();
        for (TiedDimensions group : groups) {
            for (int i = 0; i < group.dimensions().size() && group.canGrow(); i++) {
                keep.put(group.dimensions().get(i).name(), group.kept(i));
            }
        }
        // What has gone with its expert needs no entry.
        keep.keySet().removeAll(count.removedDimensions(new Plan(model, keep, layers, blocks)));
        Plan plan = new Plan(model, keep, layers, blocks);
        return new Allocation(plan, count.dense(), count.under(plan));
    }

    /**
     * The dimensions, layers and blocks that may be pruned.
     *
     * @throws UserException if the target cannot be reached
     */
    Candidates candidates() {
        double dense = budget.measure(count.dense());
        if (target > dense) {
            Currency currency = budget.currency();
            throw new UserException("there is nothing to do: the model already has only " + currency.text(dense)
                    + ", less than the " + currency.number(target) + " that were asked for; lower the target");
        }
        Candidates found = new Candidates(structure, budget, count, log);
        checkReachable(found);
        return found;
    }

    /**
     * Checks that the budget asks for no less than the smallest step. A limit is kept by any step.
     *
     * @throws UserException if the model would stay as it is
     */
    void requireStep(Candidates candidates) {
        double dense = budget.measure(count.dense());
        SmallestStep step = budget.currency().isLimit() ? null : smallestStep(candidates);
        if (step != null && target < dense && dense - target < step.least()) {
            throw step.nothingFits(budget, dense, target);
        }
    }

    /** The step that is pruned first; null if there is none. A target is met to half a unit, but no layer is pruned for it. */
    private SmallestStep smallestStep(Candidates candidates) {
        SmallestStep smallest = null;
        RunningCount running = remaining();
        List<TiedDimensions> groups = groups(candidates, running);
        for (TiedDimensions group : groups) {
            if (group.canShrink()) {
                double size = budget.measure(group.nextLoss(running));
                smallest = SmallestStep.min(smallest, new SmallestStep(group.nextStep(), size, size / 2));
            }
        }
        if (budget.prune().layers()) {
            for (int layer : candidates.layers()) {
                int[] blocks = PrunableBlocks.layers(structure).get(layer);
                smallest = SmallestStep.min(smallest, depthStep("layer " + layer, blocks, groups.isEmpty()));
            }
        }
        if (budget.prune().blocks()) {
            for (int position : candidates.blocks()) {
                int[] blocks = PrunableBlocks.blocks(structure).get(position);
                smallest = SmallestStep.min(smallest, depthStep("block " + blocks[0], blocks, groups.isEmpty()));
            }
        }
        return smallest;
    }

    private SmallestStep depthStep(String what, int[] blocks, boolean depthOnly) {
        double size = freed(blocks);
        return new SmallestStep(what, size, depthOnly ? size / 2 : size);
    }

    private double freed(int[] blocks) {
        RunningCount running = count.start();
        running.remove(ParameterCount.bits(blocks));
        return budget.measure(count.dense().minus(running.size()));
    }

    /** The tied dimensions of all groups, without the dimensions of pruned layers. */
    List<TiedDimensions> groups(Candidates candidates, RunningCount running) {
        List<TiedDimensions> groups = new ArrayList<>();
        for (List<Dimension> tied : candidates.groups()) {
            List<Dimension> remaining = tied.stream()
                    .filter(dimension -> running.lossOf(List.of(dimension), dimension.size() - 1)
                                    .bytes()
                            > 0)
                    .toList();
            if (!remaining.isEmpty()) {
                TiedDimensions group = new TiedDimensions(
                        remaining,
                        remaining.stream()
                                .map(dimension -> scores.units().get(dimension.name()))
                                .toList(),
                        step(remaining.get(0)));
                group.order(running);
                if (budget.currency().hasPlateaus()) {
                    group.dropPlateaus(running);
                }
                groups.add(group);
            }
        }
        return groups;
    }

    /** The multiple of units that a dimension keeps. */
    private int step(Dimension dimension) {
        int rounding = rounding(dimension);
        int known = budget.currency().multiple(structure, dimension);
        return rounding / gcd(rounding, known) * known;
    }

    private int rounding(Dimension dimension) {
        return switch (dimension.role()) {
            case HEADS, KV_HEADS, QUERY_HEADS -> budget.roundHeads();
            case FFN, MIXER, SIDE, HIDDEN -> {
                int channels = structure.analysis().channels(dimension.atom());
                yield budget.roundTo() / gcd(budget.roundTo(), Math.max(1, channels));
            }
            case QK_HEAD_DIM, V_HEAD_DIM, LATENT, EXPERTS, VOCABULARY, OTHER -> 1;
        };
    }

    private static int gcd(int a, int b) {
        return b == 0 ? a : gcd(b, a % b);
    }

    /**
     * Prunes layers, the least important first, as far as they fit. Returns the indices of kept layers; null if all are
     * kept.
     */
    private int[] dropLayers(Candidates candidates, RunningCount running) {
        if (!budget.prune().layers()) {
            return null;
        }
        boolean depthOnly = budget.prune().roles().isEmpty() && !budget.prune().blocks();
        List<int[]> layers = PrunableBlocks.layers(structure);
        List<Integer> order = droppable(candidates.layers(), layers.size(), scores.layers());
        BitSet pruned =
                drop(candidates.withLengths(order, layers, new BitSet()), layers, new BitSet(), depthOnly, running);
        return kept(structure.stream().layers(), pruned);
    }

    private int[] dropBlocks(Candidates candidates, int[] layers, RunningCount running) {
        if (!budget.prune().blocks()) {
            return budget.prune().layers() ? null : keptBlocks(running);
        }
        List<int[]> copies = PrunableBlocks.blocks(structure);
        Plan withoutLayers = new Plan("", Map.of(), layers, null);
        BitSet before = new BitSet();
        for (int i = 0; i < structure.stream().blocks().size(); i++) {
            before.set(
                    i,
                    withoutLayers.removesBlock(
                            i, structure.stream().blocks().get(i).layer()));
        }
        List<Integer> remaining = candidates.blocks().stream()
                .filter(position -> !before.get(copies.get(position)[0]))
                .toList();
        double[] values = copies.stream()
                .mapToDouble(indices -> scores.blocks()[indices[0]])
                .toArray();
        long present =
                copies.stream().filter(indices -> !before.get(indices[0])).count();
        boolean depthOnly = budget.prune().roles().isEmpty();
        List<Integer> order = candidates.withLengths(droppable(remaining, present, values), copies, before);
        BitSet pruned = drop(order, copies, before, depthOnly, running);
        BitSet indices = new BitSet();
        pruned.stream().forEach(position -> indices.or(ParameterCount.bits(copies.get(position))));
        return kept(structure.stream().blocks().size(), indices);
    }

    /** Blocks that an earlier step pruned stay pruned: {@link Scores#after} gives them the lowest score of all. */
    private int[] keptBlocks(RunningCount running) {
        BitSet gone = goneBefore();
        running.remove(gone);
        return kept(structure.stream().blocks().size(), gone);
    }

    private BitSet goneBefore() {
        BitSet gone = new BitSet();
        for (int index = 0; index < scores.blocks().length; index++) {
            gone.set(index, scores.blocks()[index] == Double.NEGATIVE_INFINITY);
        }
        return gone;
    }

    /** A count of the model without the blocks that an earlier step pruned. */
    private RunningCount remaining() {
        RunningCount running = count.start();
        running.remove(goneBefore());
        return running;
    }

    /** The candidates, least important first. One of {@code present} is always kept. */
    private static List<Integer> droppable(List<Integer> candidates, long present, double[] values) {
        List<Integer> sorted = new ArrayList<>(candidates);
        sorted.sort(Comparator.comparingDouble(position -> values[position]));
        return sorted.size() == present && !sorted.isEmpty() ? sorted.subList(0, sorted.size() - 1) : sorted;
    }

    /**
     * Prunes the sets of blocks at {@code order} that fit.
     *
     * @param before blocks that are already pruned
     * @param depthOnly whether no units can compensate for the missed part of the target, so that the nearest size
     *     is wanted
     */
    private BitSet drop(List<Integer> order, List<int[]> sets, BitSet before, boolean depthOnly, RunningCount running) {
        BitSet dropped = new BitSet();
        BitSet pruned = (BitSet) before.clone();
        for (int position : order) {
            BitSet next = (BitSet) pruned.clone();
            next.or(ParameterCount.bits(sets.get(position)));
            double needed = budget.measure(running.size()) - target;
            running.remove(next);
            double freed = needed - (budget.measure(running.size()) - target);
            boolean more = budget.currency().isLimit() ? needed > 0 : freed <= needed + freed / 2;
            if (freed <= needed || depthOnly && more) {
                pruned = next;
                dropped.set(position);
            } else {
                running.remove(pruned);
            }
        }
        return dropped;
    }

    /** The numbers below {@code total} that are not pruned; null for all. */
    static int[] kept(int total, BitSet pruned) {
        return pruned.isEmpty()
                ? null
                : IntStream.range(0, total).filter(index -> !pruned.get(index)).toArray();
    }

    /** The plan that keeps least. */
    Plan smallest(String model) {
        Candidates candidates = new Candidates(structure, budget, count, log);
        Map<String, int[]> keep = new LinkedHashMap<>();
        for (TiedDimensions group : groups(candidates, count.start())) {
            group.moveTo(group.lastPosition(), count.start());
            for (int i = 0; i < group.dimensions().size() && group.canGrow(); i++) {
                keep.put(group.dimensions().get(i).name(), group.kept(i));
            }
        }
        RunningCount running = count.start();
        BitSet pruned = removeAllDepth(candidates, running);
        int[] blocks = kept(structure.stream().blocks().size(), pruned);
        keep.keySet().removeAll(count.removedDimensions(new Plan(model, keep, null, blocks)));
        return new Plan(model, keep, null, blocks);
    }

    private void checkReachable(Candidates candidates) {
        RunningCount running = remaining();
        double unit = Double.MAX_VALUE;
        for (TiedDimensions group : groups(candidates, running)) {
            if (group.canShrink()) {
                unit = Math.min(unit, budget.measure(group.nextLoss(running)));
            }
        }
        if (unit == Double.MAX_VALUE) {
            unit = smallestDepthUnit(candidates);
        }
        for (TiedDimensions group : groups(candidates, running)) {
            group.moveTo(group.lastPosition(), running);
        }
        removeAllDepth(candidates, running);
        double least = running.amount();
        Currency currency = budget.currency();
        if (least - (currency.isLimit() ? 0 : unit / 2) > target) {
            double dense = budget.measure(count.dense());
            throw new UserException(String.format(
                    "%s cannot be reached by pruning %s: at least %s remain (ratio %.4f)%s; prune more"
                            + " structures or ask for less",
                    currency.text(target),
                    budget.prune(),
                    currency.number(least),
                    1 - least / dense,
                    candidates.limits()));
        }
    }

    private double smallestDepthUnit(Candidates candidates) {
        List<int[]> sets = new ArrayList<>();
        if (budget.prune().layers()) {
            candidates
                    .layers()
                    .forEach(i -> sets.add(PrunableBlocks.layers(structure).get(i)));
        }
        if (budget.prune().blocks()) {
            candidates
                    .blocks()
                    .forEach(i -> sets.add(PrunableBlocks.blocks(structure).get(i)));
        }
        return sets.stream().mapToDouble(this::freed).min().orElse(0);
    }

    /** Removes all layers and blocks that may go; returns the blocks. */
    private BitSet removeAllDepth(Candidates candidates, RunningCount running) {
        BitSet pruned = goneBefore();
        if (budget.prune().layers()) {
            List<int[]> layers = PrunableBlocks.layers(structure);
            candidates
                    .withLengths(droppable(candidates.layers(), layers.size(), scores.layers()), layers, new BitSet())
                    .forEach(index -> pruned.or(ParameterCount.bits(layers.get(index))));
        }
        if (budget.prune().blocks()) {
            List<int[]> blocks = PrunableBlocks.blocks(structure);
            List<Integer> remaining = candidates.blocks().stream()
                    .filter(position -> !pruned.get(blocks.get(position)[0]))
                    .toList();
            long present = blocks.stream().filter(set -> !pruned.get(set[0])).count();
            double[] values =
                    blocks.stream().mapToDouble(set -> scores.blocks()[set[0]]).toArray();
            candidates
                    .withLengths(droppable(remaining, present, values), blocks, (BitSet) pruned.clone())
                    .forEach(index -> pruned.or(ParameterCount.bits(blocks.get(index))));
        }
        running.remove(pruned);
        return pruned;
    }
}
