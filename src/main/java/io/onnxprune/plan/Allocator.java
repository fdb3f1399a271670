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

/** One run of {@link Allocation#of}: first whole layers and blocks as far as they fit, then units of dimensions. */
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
        this.count = ParameterCount.of(structure);
        this.target = budget.target(count.whole());
    }

    Allocation run(String model) {
        if (target == budget.measure(count.whole())) {
            return new Allocation(Plan.keepAll(model), count.whole(), count.whole());
        }
        Candidates candidates = candidates();
        ParameterCount.Running running = count.start();
        int[] layers = dropLayers(candidates, running);
        int[] blocks = dropBlocks(candidates, layers, running);
        List<TiedDimensions> tracks = tracks(candidates, running);
        new GreedyAllocator(tracks, running, budget, target).run();

        Map<String, int[]> keep = new LinkedHashMap<>();
        for (TiedDimensions track : tracks) {
            for (int i = 0; i < track.dimensions().size() && track.canGrow(); i++) {
                keep.put(track.dimensions().get(i).name(), track.kept(i));
            }
        }
        Plan plan = new Plan(model, keep, layers, blocks);
        return new Allocation(plan, count.whole(), count.under(plan));
    }

    /**
     * What may go.
     *
     * @throws UserException if the target cannot be reached
     */
    Candidates candidates() {
        long whole = budget.measure(count.whole());
        if (target > whole) {
            throw new UserException(String.format(
                    "the model already has only %,d %s, fewer than the %,.0f asked for; ask for less",
                    whole, budget.unit(), target));
        }
        Candidates found = new Candidates(structure, budget, count, log);
        checkReachable(found);
        return found;
    }

    /** The tracks of all groups, without the dimensions of layers that are gone. */
    private List<TiedDimensions> tracks(Candidates candidates, ParameterCount.Running running) {
        List<TiedDimensions> tracks = new ArrayList<>();
        for (List<Dimension> group : candidates.groups()) {
            List<Dimension> left = group.stream()
                    .filter(dimension -> budget.measure(running.lossOf(List.of(dimension), dimension.size() - 1)) > 0)
                    .toList();
            if (!left.isEmpty()) {
                tracks.add(new TiedDimensions(
                        left,
                        left.stream()
                                .map(dimension -> scores.units().get(dimension.name()))
                                .toList(),
                        step(left.get(0))));
            }
        }
        return tracks;
    }

    private int step(Dimension dimension) {
        return switch (dimension.role()) {
            case HEADS, KV_HEADS, QUERY_HEADS -> budget.roundHeads();
            case FFN, HIDDEN -> {
                // A unit is several channels where quantisation blocks stay whole. What is summed over tells: weights
                // may carry the channels twice (fused projections) or by blocks.
                long channels = structure.analysis().facts().contractions().stream()
                        .filter(contraction -> contraction.withConstant()
                                && contraction.dim().atoms().contains(dimension.atom()))
                        .mapToLong(contraction -> contraction.dim().size(0) / dimension.size())
                        .min()
                        .orElse(1);
                yield budget.roundTo() / gcd(budget.roundTo(), (int) Math.max(1, channels));
            }
            case QK_HEAD_DIM, V_HEAD_DIM, LATENT, EXPERTS, VOCABULARY, OTHER -> 1;
        };
    }

    private static int gcd(int a, int b) {
        return b == 0 ? a : gcd(b, a % b);
    }

    /** Drops layers, the least important first, as far as they fit; null if all stay, else the indices that stay. */
    private int[] dropLayers(Candidates candidates, ParameterCount.Running running) {
        if (!budget.prune().layers()) {
            return null;
        }
        boolean alone = budget.prune().roles().isEmpty() && !budget.prune().blocks();
        BitSet gone = drop(
                droppable(candidates.layers(), PrunableBlocks.layers(structure).size(), scores.layers()),
                PrunableBlocks.layers(structure),
                new BitSet(),
                alone,
                running);
        return kept(structure.stream().layers(), gone);
    }

    private int[] dropBlocks(Candidates candidates, int[] layers, ParameterCount.Running running) {
        if (!budget.prune().blocks()) {
            return null;
        }
        List<int[]> copies = PrunableBlocks.blocks(structure);
        Plan sofar = new Plan("", Map.of(), layers, null);
        BitSet before = new BitSet();
        for (int i = 0; i < structure.stream().blocks().size(); i++) {
            before.set(
                    i, sofar.removesBlock(i, structure.stream().blocks().get(i).layer()));
        }
        List<Integer> left = candidates.blocks().stream()
                .filter(position -> !before.get(copies.get(position)[0]))
                .toList();
        double[] values = copies.stream()
                .mapToDouble(indices -> scores.blocks()[indices[0]])
                .toArray();
        long present =
                copies.stream().filter(indices -> !before.get(indices[0])).count();
        boolean alone = budget.prune().roles().isEmpty();
        BitSet gone = drop(droppable(left, present, values), copies, before, alone, running);
        BitSet indices = new BitSet();
        gone.stream().forEach(position -> indices.or(ParameterCount.bits(copies.get(position))));
        return kept(structure.stream().blocks().size(), indices);
    }

    /** The candidates, least important first; one of {@code present} always stays. */
    private static List<Integer> droppable(List<Integer> candidates, long present, double[] values) {
        List<Integer> sorted = new ArrayList<>(candidates);
        sorted.sort(Comparator.comparingDouble(position -> values[position]));
        return sorted.size() == present && !sorted.isEmpty() ? sorted.subList(0, sorted.size() - 1) : sorted;
    }

    /**
     * Drops the sets of blocks at {@code order} that fit.
     *
     * @param before blocks that are gone already
     * @param alone whether nothing else can make up for what is missed, so that the nearest is wanted
     */
    private BitSet drop(
            List<Integer> order, List<int[]> sets, BitSet before, boolean alone, ParameterCount.Running running) {
        BitSet dropped = new BitSet();
        BitSet gone = (BitSet) before.clone();
        for (int position : order) {
            BitSet next = (BitSet) gone.clone();
            next.or(ParameterCount.bits(sets.get(position)));
            double needed = budget.measure(running.size()) - target;
            running.remove(next);
            double freed = needed - (budget.measure(running.size()) - target);
            if (freed <= needed + (alone ? freed / 2 : 0)) {
                gone = next;
                dropped.set(position);
            } else {
                running.remove(gone);
            }
        }
        return dropped;
    }

    private static int[] kept(int total, BitSet gone) {
        return gone.isEmpty()
                ? null
                : IntStream.range(0, total).filter(index -> !gone.get(index)).toArray();
    }

    private void checkReachable(Candidates candidates) {
        ParameterCount.Running running = count.start();
        double unit = Double.MAX_VALUE;
        for (TiedDimensions track : tracks(candidates, running)) {
            if (track.canShrink()) {
                unit = Math.min(unit, (double) budget.measure(track.nextLoss(running)));
            }
        }
        if (unit == Double.MAX_VALUE) {
            unit = smallestDepthUnit(candidates);
        }
        for (TiedDimensions track : tracks(candidates, running)) {
            track.moveTo(track.lastPosition(), running);
        }
        removeAllDepth(candidates, running);
        long least = budget.measure(running.size());
        if (least - unit / 2 > target) {
            long whole = budget.measure(count.whole());
            throw new UserException(String.format(
                    "%,.0f %s cannot be reached by pruning %s: at least %,d stay (ratio %.4f)%s; prune more"
                            + " structures or ask for less",
                    target, budget.unit(), budget.prune(), least, 1 - (double) least / whole, candidates.limits()));
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
        return sets.stream()
                .mapToDouble(blocks -> {
                    ParameterCount.Running running = count.start();
                    running.remove(ParameterCount.bits(blocks));
                    return budget.measure(count.whole().minus(running.size()));
                })
                .min()
                .orElse(0);
    }

    private void removeAllDepth(Candidates candidates, ParameterCount.Running running) {
        BitSet gone = new BitSet();
        if (budget.prune().layers()) {
            List<int[]> layers = PrunableBlocks.layers(structure);
            droppable(candidates.layers(), layers.size(), scores.layers())
                    .forEach(index -> gone.or(ParameterCount.bits(layers.get(index))));
        }
        if (budget.prune().blocks()) {
            List<int[]> blocks = PrunableBlocks.blocks(structure);
            List<Integer> left = candidates.blocks().stream()
                    .filter(position -> !gone.get(blocks.get(position)[0]))
                    .toList();
            long present = blocks.stream().filter(set -> !gone.get(set[0])).count();
            double[] values =
                    blocks.stream().mapToDouble(set -> scores.blocks()[set[0]]).toArray();
            droppable(left, present, values).forEach(index -> gone.or(ParameterCount.bits(blocks.get(index))));
        }
        running.remove(gone);
    }
}
