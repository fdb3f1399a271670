// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.Statistics;
import io.onnxprune.calibrate.Tap;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Structure;
import io.onnxprune.obs.Damping;
import io.onnxprune.obs.GreedyRemoval;
import io.onnxprune.obs.GreedyRemoval.Rule;
import io.onnxprune.obs.LayerProblem;
import io.onnxprune.obs.RemovalOrder;
import io.onnxprune.plan.Importance;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.plan.Scores;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Supplier;
import java.util.stream.IntStream;

/**
 * Importance by the optimal brain surgeon: the loss increase when a unit is pruned and the kept weights compensate. For
 * the consumers X·W of a dimension, units are removed one at a time at the least cost ½ tr(ΔWᵀ A ΔW G). A is XᵀX. G is
 * DᵀD of the gradients D of the loss by the layer's output, or the identity (OBS in the metric of the LLM Surgeon,
 * arXiv 2312.17244). With G, costs of different layers are in the same unit.
 *
 * <p>The score of a unit is the slope of the lower convex hull of the cumulated costs at its removal. So scores rise in
 * the order of removal, and a ranking by score per parameter takes the cheapest units of every dimension.
 */
public final class ObsImportance implements Importance {
    /** The metric of errors. */
    public enum Curvature {
        /** An error of a linear layer counts as it is. */
        OUTPUT,
        /** An error counts by what it does to the loss. */
        LOSS
    }

    /** The linear layers whose costs count. */
    public enum Members {
        /** The consumers of the dimension. */
        CONSUMERS,
        /** Consumers and producers, each producer with the cost of an independent removal of the unit. */
        ALL
    }

    /**
     * How units are scored.
     *
     * @param members which linear layers count. With {@link Members#ALL}, the cost of a coupled group is the sum
     *     over its members, and A and G change places for producers. It requires the curvature of the loss.
     * @param selection the order of removal and the damping
     */
    public record Settings(Curvature curvature, Members members, ObsSelection selection) {}

    private final PrunedModel model;
    private final PruneSet prune;
    private final boolean loss;
    private final boolean producers;
    private final ObsSelection selection;
    private final BiasStore biases;

    /** A dimension with its consumers, and with its producers if they count. */
    private record Job(Dimension dimension, List<PrunedLinear> consumers, List<PrunedLinear> producers) {}

    /** Scores the units of {@code model} that {@code prune} names. */
    public ObsImportance(PrunedModel model, PruneSet prune, Settings settings) {
        this.model = model;
        this.prune = prune;
        this.loss = settings.curvature == Curvature.LOSS;
        this.producers = settings.members == Members.ALL;
        this.selection = settings.selection;
        this.biases = new BiasStore(model.state());
    }

    @Override
    public Scores score(Structure structure, Log log) {
        List<Job> jobs = jobs();
        Set<Tap> taps = new LinkedHashSet<>();
        jobs.forEach(job -> taps.addAll(taps(job)));
        Map<String, double[]> units = new HashMap<>();
        if (jobs.isEmpty()) {
            return Scores.ofUnits(units, structure);
        }
        try (Statistics statistics = model.source().of(model.calibrator(), taps)) {
            for (Job job : jobs) {
                units.put(job.dimension.name(), scores(job, statistics, log));
            }
        }
        return Scores.ofUnits(units, structure);
    }

    private List<Job> jobs() {
        Map<LinearLayer, PrunedLinear> linears = new LinkedHashMap<>();
        model.linears().forEach(layer -> linears.put(layer.dense(), layer));
        List<Job> jobs = new ArrayList<>();
        Set<String> gone = model.state().goneDimensions();
        for (Dimension dimension : model.state().structure().dimensions()) {
            boolean wanted = dimension.isPrunable()
                    && prune.roles().contains(dimension.role())
                    && !gone.contains(dimension.name());
            if (wanted && model.layers().reason(dimension, loss) == null) {
                jobs.add(new Job(dimension, consumers(dimension, linears), producers(dimension, linears.values())));
            }
        }
        return jobs;
    }

    private List<PrunedLinear> consumers(Dimension dimension, Map<LinearLayer, PrunedLinear> linears) {
        List<PrunedLinear> found = new ArrayList<>();
        for (LinearLayer consumer : model.layers().scoring(dimension)) {
            if (!linears.containsKey(consumer)) {
                throw new UserException("no units of " + dimension.name()
                        + " can be scored: the model does not run its consumer, node " + consumer.node()
                        + ", between the tokens and the logits");
            }
            found.add(linears.get(consumer));
        }
        return found;
    }

    private List<PrunedLinear> producers(Dimension dimension, Collection<PrunedLinear> linears) {
        return !producers
                ? List.of()
                : linears.stream()
                        .filter(layer -> layer.dense().produces(dimension)
                                && model.layers().isInside(layer.dense()))
                        .toList();
    }

    private Set<Tap> taps(Job job) {
        Set<Tap> taps = new LinkedHashSet<>();
        job.consumers.forEach(layer -> taps.addAll(taps(layer)));
        job.producers.forEach(layer -> taps.addAll(taps(layer)));
        return taps;
    }

    private List<Tap> taps(PrunedLinear layer) {
        List<Tap> taps = new ArrayList<>(Statistics.ofInputs(layer.lowered().input(), biases.of(layer) != null));
        if (loss) {
            taps.add(new Tap.GradientSecondMoment(layer.lowered().output()));
        }
        return taps;
    }

    private double[] scores(Job job, Statistics statistics, Log log) {
        int[] present = present(job);
        List<Supplier<LayerProblem>> members = new ArrayList<>();
        for (PrunedLinear layer : job.consumers) {
            members.add(() -> consumerProblem(layer, select(layer.units(job.dimension), present), statistics));
        }
        for (PrunedLinear layer : job.producers) {
            members.add(() -> producerProblem(layer, select(layer.outputUnits(job.dimension), present), statistics));
        }
        Damping damping = new Damping(selection.damping(), statistics.tokens(), job.dimension.name(), log);
        Rule rule = selection.ruleOf(job.dimension);
        return hull(
                job.dimension.size(),
                present,
                rule.isIndependent()
                        ? independent(members, present.length, rule, damping)
                        : joint(members, rule, damping));
    }

    /** Scores units by independent removal. Only one member of a group is in memory at a time. */
    private static RemovalOrder independent(
            List<Supplier<LayerProblem>> members, int units, Rule rule, Damping damping) {
        double[] costs = new double[units];
        for (Supplier<LayerProblem> member : members) {
            LayerProblem problem = member.get();
            try {
                RemovalOrder all = GreedyRemoval.of(List.of(problem), units, rule, damping);
                for (int i = 0; i < units; i++) {
                    costs[all.order()[i]] += all.costs()[i];
                }
            } finally {
                close(problem);
            }
        }
        return RemovalOrder.cheapest(costs, Math.max(0, units - 1), damping.share());
    }

    private static RemovalOrder joint(List<Supplier<LayerProblem>> members, Rule rule, Damping damping) {
        List<LayerProblem> problems = new ArrayList<>();
        try {
            members.forEach(member -> problems.add(member.get()));
            int units = problems.get(0).units().size();
            return GreedyRemoval.of(problems, Math.max(0, units - 1), rule, damping);
        } finally {
            problems.forEach(ObsImportance::close);
        }
    }

    private static List<int[]> select(List<int[]> units, int[] present) {
        return IntStream.of(present).mapToObj(units::get).toList();
    }

    /** The pruning problem of a consumer. Its bias counts as one more input. */
    private LayerProblem consumerProblem(PrunedLinear layer, List<int[]> units, Statistics statistics) {
        double[] bias = biases.of(layer);
        return new LayerProblem(
                statistics.inputs(layer.lowered().input(), bias != null),
                layer.read(bias),
                loss ? statistics.gradients(layer.lowered().output()) : null,
                units);
    }

    /** The pruning problem of a producer. Its outputs take the place of inputs. */
    private LayerProblem producerProblem(PrunedLinear layer, List<int[]> units, Statistics statistics) {
        double[] bias = biases.of(layer);
        try (Matrix w = layer.read(bias)) {
            return new LayerProblem(
                    statistics.gradients(layer.lowered().output()),
                    w.transposed(),
                    statistics.inputs(layer.lowered().input(), bias != null),
                    units);
        }
    }

    private static void close(LayerProblem problem) {
        problem.a().close();
        problem.w().close();
        if (problem.g() != null) {
            problem.g().close();
        }
    }

    /** The units that the model still has, which are those with channels. */
    private static int[] present(Job job) {
        List<int[]> units = job.consumers.get(0).units(job.dimension);
        return IntStream.range(0, units.size())
                .filter(unit -> units.get(unit).length > 0)
                .toArray();
    }

    /**
     * Scores of units that are removed in the order {@code present[order[0]], ...}. The unit that is never removed gets
     * the highest score.
     */
    static double[] hull(int size, int[] present, RemovalOrder removal) {
        double[] slopes = risingMeans(removal.costs());
        double[] scores = new double[size];
        double last = 0;
        Set<Integer> kept = new HashSet<>();
        IntStream.of(present).forEach(kept::add);
        for (int i = 0; i < slopes.length; i++) {
            last = i == 0 ? slopes[i] : Math.max(slopes[i], Math.nextUp(last));
            scores[present[removal.order()[i]]] = last;
            kept.remove(present[removal.order()[i]]);
        }
        double most = Math.nextUp(2 * last);
        kept.forEach(unit -> scores[unit] = most);
        return scores;
    }

    /**
     * The slopes of the lower convex hull of the partial sums of {@code costs}. Neighbours that decrease are averaged
     * until all slopes rise.
     */
    private static double[] risingMeans(double[] costs) {
        double[] means = new double[costs.length];
        int[] counts = new int[costs.length];
        int groups = 0;
        for (double cost : costs) {
            means[groups] = cost;
            counts[groups++] = 1;
            while (groups > 1 && means[groups - 2] > means[groups - 1]) {
                int both = counts[groups - 2] + counts[groups - 1];
                means[groups - 2] =
                        (means[groups - 2] * counts[groups - 2] + means[groups - 1] * counts[groups - 1]) / both;
                counts[groups - 2] = both;
                groups--;
            }
        }
        double[] slopes = new double[costs.length];
        for (int group = 0, at = 0; group < groups; group++) {
            for (int i = 0; i < counts[group]; i++) {
                slopes[at++] = means[group];
            }
        }
        return slopes;
    }
}
