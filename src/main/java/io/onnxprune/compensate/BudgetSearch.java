// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.Divergence;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dimension;
import io.onnxprune.ir.CheckpointFile;
import io.onnxprune.plan.Reallocation;
import io.onnxprune.plan.Reallocation.Point;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Comparator;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.function.Predicate;
import java.util.stream.Collectors;

/**
 * Searches for the allocation of a budget whose predictions are nearest to those of the dense model, by forward passes
 * alone (after EvoPress, arXiv 2410.14649, and Týr-the-Pruner, arXiv 2503.09657). The fitness of an allocation is the KL
 * divergence on rows that nothing was solved for.
 *
 * <p>A generation first measures, on few tokens, what each place gains if it gets back one quantum of the budget, and what
 * it costs if it loses one. Candidates move a quantum between the two places of a pair, or between several pairs, those
 * with the largest difference first, or let a block go or come back. They are compared on few, then on more, then on all
 * tokens; the better part stays each time. The best one takes the place of the best so far if its divergence is less on
 * all tokens. Otherwise the quantum is halved. Nothing is random.
 */
public final class BudgetSearch {
    /**
     * How far a search goes.
     *
     * @param generations largest number of generations
     * @param candidates number of candidates of a generation that move budget between places
     * @param quantum the first amount that is moved, as a share of the mean size of a place
     * @param blocks whether entire blocks may go
     * @param damping added to the diagonal of XᵀX of the layers that compensate, as a share of its mean
     */
    public record Settings(int generations, int candidates, double quantum, boolean blocks, double damping) {}

    /**
     * The dense model and the rows on which predictions are compared.
     *
     * @param dense runs the dense model
     * @param rows token ids, rows that nothing was solved for
     */
    public record Reference(Calibrator dense, List<long[]> rows) {}

    /**
     * The result of a search.
     *
     * @param best the allocation with the least divergence
     * @param start divergence of the first allocation on all rows, in nats a token
     * @param reached divergence of the best allocation
     * @param generations number of generations
     * @param measured number of divergences that were measured
     */
    public record Result(Point best, double start, double reached, int generations, int measured) {}

    /** Tokens of the stages before the one on all rows. */
    private static final int[] STAGES = {2048, 16384};

    /** The quantum is halved at most so many times. */
    private static final double SMALLEST = 1.0 / 16;

    private final PrunedModel model;
    private final Reallocation space;
    private final Settings settings;
    private final Log log;
    private final CandidateWeights weights;
    private final List<Divergence> stages = new ArrayList<>();
    private final List<Map<Point, Double>> known = new ArrayList<>();
    private final List<Integer> blocks;
    private int measured;

    /** How far a search is. */
    private record Position(int generation, Point best, double start, double reached, double quantum) {}

    private BudgetSearch(
            PrunedModel model, CandidateWeights weights, Reallocation space, Settings settings, List<Integer> blocks) {
        this.model = model;
        this.space = space;
        this.settings = settings;
        this.log = model.log();
        this.weights = weights;
        this.blocks = blocks;
    }

    /** Makes the allocations that a search may choose from. */
    @FunctionalInterface
    public interface Space {
        /**
         * The allocations among which weights can move.
         *
         * @param movable whether units of a dimension can go by changes of weights alone
         */
        Reallocation of(Predicate<Dimension> movable);
    }

    /**
     * Searches from the first allocation of {@code space}.
     *
     * @param model the model before the choice
     * @param checkpoint saves each generation and lets a stopped run resume; empty for none
     * @return the best allocation with its plan's space
     * @throws io.onnxprune.diag.UserException when a run fails
     */
    public static Found run(
            PrunedModel model,
            Reference reference,
            Space space,
            Settings settings,
            Optional<CheckpointFile> checkpoint) {
        try (CandidateWeights weights = new CandidateWeights(model, settings.damping)) {
            Reallocation allocations = space.of(weights::canChange);
            List<Integer> blocks = settings.blocks ? movableBlocks(allocations, weights, model.log()) : List.of();
            BudgetSearch search = new BudgetSearch(model, weights, allocations, settings, blocks);
            try {
                search.open(reference);
                return new Found(allocations, search.run(checkpoint));
            } finally {
                search.stages.forEach(Divergence::close);
            }
        }
    }

    /**
     * A result and the allocations that it is one of.
     *
     * @param space makes its plan
     * @param result the result
     */
    public record Found(Reallocation space, Result result) {}

    private static List<Integer> movableBlocks(Reallocation space, CandidateWeights weights, Log log) {
        List<Integer> all = space.removable(space.start());
        List<Integer> found = all.stream()
                .filter(block -> Arrays.stream(space.block(block)).allMatch(weights::canGo))
                .toList();
        if (found.size() < all.size()) {
            int first = all.stream()
                    .filter(block -> !found.contains(block))
                    .findFirst()
                    .orElseThrow();
            log.warn((all.size() - found.size())
                    + " residual blocks only lose units and do not go as a whole, such as blocks."
                    + space.block(first)[0] + ": it does not end in a linear layer whose weight and bias can be zero");
        }
        return found;
    }

    private void open(Reference reference) {
        int length = reference.rows.get(0).length;
        Set<Integer> counts = new TreeSet<>();
        for (int tokens : STAGES) {
            counts.add(Math.min(reference.rows.size(), (tokens + length - 1) / length));
        }
        counts.add(reference.rows.size());
        for (int count : counts) {
            stages.add(Divergence.from(reference.dense, model.calibrator(), reference.rows.subList(0, count)));
            known.add(new HashMap<>());
        }
    }

    private Result run(Optional<CheckpointFile> checkpoint) {
        Position at = checkpoint.flatMap(file -> file.load(this::restore)).orElseGet(this::first);
        while (at.generation < settings.generations && at.quantum >= settings.quantum * SMALLEST && space.size() > 0) {
            Position done = generation(at);
            checkpoint.ifPresent(file -> file.save(content(done)));
            weights.retain(List.of(space.plan(done.best)));
            at = done;
            known.forEach(Map::clear);
        }
        return new Result(at.best, at.start, at.reached, at.generation, measured);
    }

    private Position first() {
        Point start = space.start();
        double value = divergence(start, stages.size() - 1);
        return new Position(0, start, value, value, settings.quantum);
    }

    private Position generation(Position at) {
        double size = at.quantum * space.meanSize();
        List<Point> candidates = candidates(at.best, size);
        Point winner = best(candidates);
        double value = winner == null ? Double.POSITIVE_INFINITY : divergence(winner, stages.size() - 1);
        boolean better = value < at.reached;
        Position next = better
                ? new Position(at.generation + 1, winner, at.start, value, at.quantum)
                : new Position(at.generation + 1, at.best, at.start, at.reached, at.quantum / 2);
        log.info(String.format(
                Locale.ROOT,
                "search, generation %d of at most %d: divergence %.4f (start %.4f), best of %d candidates that move %,.0f: %s",
                next.generation,
                settings.generations,
                next.reached,
                next.start,
                candidates.size(),
                size,
                better ? "better" : "no better"));
        return next;
    }

    /** The candidates that are best on few tokens, then on more; null if there is none. */
    private Point best(List<Point> candidates) {
        List<Point> left = candidates;
        for (int stage = 0; stage < stages.size() && left.size() > 1; stage++) {
            int at = stage;
            boolean last = stage == stages.size() - 1;
            left = left.stream()
                    .sorted(Comparator.comparingDouble(point -> divergence(point, at)))
                    .limit(last ? 1 : Math.max(2, (left.size() + 3) / 4))
                    .toList();
        }
        return left.isEmpty() ? null : left.get(0);
    }

    private double divergence(Point point, int stage) {
        return known.get(stage).computeIfAbsent(point, unused -> {
            measured++;
            double[] rows = model.calibrator()
                    .withWeights(weights.of(space.plan(point)))
                    .losses(stages.get(stage));
            double mean = Arrays.stream(rows).average().orElseThrow();
            return Double.isFinite(mean) ? mean : Double.MAX_VALUE;
        });
    }

    /** A place with what a change of it does to the divergence, for each unit of size. */
    private record Slope(int place, double slope) {}

    private List<Point> candidates(Point best, double size) {
        Set<Point> found = new LinkedHashSet<>();
        blockMoves(best, found);
        List<Slope> back = slopes(best, -size);
        List<Slope> away = slopes(best, size);
        record Pair(int from, int to, double gain) {}
        List<Pair> pairs = new ArrayList<>();
        for (Slope from : away) {
            for (Slope to : back) {
                if (from.place != to.place) {
                    pairs.add(new Pair(from.place, to.place, to.slope - from.slope));
                }
            }
        }
        pairs.sort(Comparator.comparingDouble(Pair::gain).reversed());
        Set<Integer> used = new TreeSet<>();
        Point several = best;
        int moves = 0;
        for (Pair pair : pairs) {
            if (found.size() >= settings.candidates + blocks.size()) {
                break;
            }
            space.moved(best, pair.from, pair.to, size).ifPresent(found::add);
            if (!used.contains(pair.from) && !used.contains(pair.to)) {
                used.addAll(List.of(pair.from, pair.to));
                several = space.moved(several, pair.from, pair.to, size).orElse(several);
                if (++moves > 1) {
                    found.add(several);
                }
            }
        }
        found.remove(best);
        return List.copyOf(found);
    }

    private void blockMoves(Point best, Set<Point> found) {
        List<Integer> removable = space.removable(best);
        for (int block : blocks) {
            if (best.gone().contains(block)) {
                space.with(best, block).ifPresent(found::add);
            } else if (removable.contains(block)) {
                space.without(best, block).ifPresent(found::add);
            }
        }
    }

    /**
     * For each place, by how much the divergence falls for each unit of size that it gets back, or rises for each that it
     * loses.
     */
    private List<Slope> slopes(Point best, double size) {
        double before = divergence(best, 0);
        double whole = space.measure(best);
        List<Slope> slopes = new ArrayList<>();
        for (int place = 0; place < space.size(); place++) {
            Optional<Point> probe = space.probe(best, place, size);
            if (probe.isPresent()) {
                double change = whole - space.measure(probe.get());
                slopes.add(new Slope(place, (divergence(probe.get(), 0) - before) / change));
            }
        }
        return slopes;
    }

    private CheckpointFile.Content content(Position at) {
        Map<String, String> values = new LinkedHashMap<>();
        values.put("generation", Integer.toString(at.generation));
        values.put("levels", text(at.best.levels()));
        values.put("gone", text(at.best.gone()));
        values.put("start", Double.toString(at.start));
        values.put("reached", Double.toString(at.reached));
        values.put("quantum", Double.toString(at.quantum));
        values.put("measured", Integer.toString(measured));
        return new CheckpointFile.Content(values, Map.of());
    }

    private static String text(Collection<Integer> numbers) {
        return numbers.stream().map(String::valueOf).collect(Collectors.joining(" "));
    }

    private Position restore(CheckpointFile.Content content) {
        Map<String, String> values = content.values();
        Point best = new Point(numbers(values.get("levels")), new TreeSet<>(numbers(values.get("gone"))));
        if (best.levels().size() != space.size()) {
            throw new IllegalArgumentException("levels of " + best.levels().size() + " places");
        }
        measured = Integer.parseInt(values.get("measured"));
        log.info("the search resumes: " + values.get("generation") + " generations are done");
        return new Position(
                Integer.parseInt(values.get("generation")),
                best,
                Double.parseDouble(values.get("start")),
                Double.parseDouble(values.get("reached")),
                Double.parseDouble(values.get("quantum")));
    }

    private static List<Integer> numbers(String text) {
        return text.isBlank()
                ? List.of()
                : Arrays.stream(text.split(" ")).map(Integer::valueOf).toList();
    }
}
