// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.Linear;
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
import io.onnxprune.plan.Consumers;
import io.onnxprune.plan.Consumers.Consumer;
import io.onnxprune.plan.Importance;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.plan.Scores;
import io.onnxprune.rewrite.PrunedState;
import java.util.ArrayList;
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
 * What the model loses by each unit when the remaining weights make up for it: for the products X·W that sum over a
 * dimension, units are removed one at a time at the least cost ½ tr(ΔWᵀ A ΔW G), with A = XᵀX and G = DᵀD of the gradients
 * D of the loss by the product, or the identity (OBS in the metric of the LLM Surgeon, arXiv 2312.17244). With G costs of
 * different layers are in the same unit.
 *
 * <p>The score of a unit is the slope of the lower convex hull of the sums of costs where the unit goes. So scores rise in the
 * order of removal, and a ranking by score per parameter takes from every dimension what is cheapest altogether.
 */
public final class ObsImportance implements Importance {
    private final PrunedState state;
    private final Consumers consumers;
    private final PruneSet prune;
    private final Calibrator calibrator;
    private final Statistics.Source source;
    private final boolean loss;
    private final boolean makers;
    private final SequentialPruning.Selection selection;
    private final BiasStore biases;

    /** A dimension with the products that sum over it, and those that make it if they count. */
    private record Job(Dimension dimension, List<Product> readers, List<Product> makers) {}

    /** A product in the model that is measured and in the original. */
    private record Product(Linear linear, Site site) {}

    /**
     * Measures the model of {@code state}.
     *
     * @param prune what is to be scored
     * @param calibrator of that model
     * @param source measures it
     * @param loss whether G is that of the loss, or else the identity
     * @param makers whether the products that make a dimension count too, each as if it alone lost the unit: with the parts of A
     *     and G exchanged (the cost of a coupled group is the sum over its members); only with the G of the loss
     */
    public ObsImportance(
            PrunedState state,
            Consumers consumers,
            PruneSet prune,
            Calibrator calibrator,
            Statistics.Source source,
            boolean loss,
            boolean makers,
            SequentialPruning.Selection selection) {
        this.state = state;
        this.consumers = consumers;
        this.prune = prune;
        this.calibrator = calibrator;
        this.source = source;
        this.loss = loss;
        this.makers = makers;
        this.biases = new BiasStore(state);
        this.selection = selection;
    }

    @Override
    public Scores score(Structure structure, Log log) {
        List<Job> jobs = jobs();
        Set<Tap> taps = new LinkedHashSet<>();
        jobs.forEach(job -> taps.addAll(taps(job)));
        Map<String, double[]> units = new HashMap<>();
        try (Statistics statistics = source.of(calibrator, taps)) {
            for (Job job : jobs) {
                units.put(job.dimension.name(), scores(job, statistics, log));
            }
        }
        int layers = structure.stream().layers();
        return new Scores(
                units,
                new double[layers],
                new double[structure.stream().blocks().size()]);
    }

    private List<Job> jobs() {
        Map<Consumer, Product> products = new LinkedHashMap<>();
        Sites sites = new Sites(state, consumers);
        for (Linear linear : calibrator.linears()) {
            Site site = sites.of(linear);
            if (site != null) {
                products.putIfAbsent(site.consumer(), new Product(linear, site));
            }
        }
        List<Job> jobs = new ArrayList<>();
        for (Dimension dimension : state.structure().dimensions()) {
            boolean wanted = dimension.isPrunable() && prune.roles().contains(dimension.role());
            if (wanted && consumers.reason(dimension, loss) == null) {
                List<Product> found = new ArrayList<>();
                for (Consumer consumer : consumers.deciding(dimension)) {
                    if (!products.containsKey(consumer)) {
                        throw new UserException("nothing of " + dimension.name()
                                + " can be scored: the model does not compute its product, node " + consumer.node()
                                + ", on the way from the tokens to the logits");
                    }
                    found.add(products.get(consumer));
                }
                List<Product> making = !makers
                        ? List.of()
                        : products.values().stream()
                                .filter(product -> product.site.consumer().makes(dimension)
                                        && consumers.isInside(product.site.consumer()))
                                .toList();
                jobs.add(new Job(dimension, found, making));
            }
        }
        return jobs;
    }

    private Set<Tap> taps(Job job) {
        Set<Tap> taps = new LinkedHashSet<>();
        for (Product product : job.readers) {
            taps.addAll(taps(product));
        }
        for (Product product : job.makers) {
            taps.addAll(taps(product));
        }
        return taps;
    }

    private List<Tap> taps(Product product) {
        List<Tap> taps = new ArrayList<>(Statistics.ofInputs(product.linear.input(), biases.of(product.site) != null));
        if (loss) {
            taps.add(new Tap.GradientSecondMoment(product.linear.output()));
        }
        return taps;
    }

    private double[] scores(Job job, Statistics statistics, Log log) {
        int[] present = present(job);
        List<Supplier<LayerProblem>> members = new ArrayList<>();
        for (Product product : job.readers) {
            members.add(() -> reading(product, chosen(product.site.units(job.dimension), present), statistics));
        }
        for (Product product : job.makers) {
            members.add(() -> making(product, chosen(product.site.outputUnits(job.dimension), present), statistics));
        }
        Damping damping = new Damping(selection.damping(), statistics.tokens(), job.dimension.name(), log);
        Rule rule = selection.rule(job.dimension);
        return hull(
                job.dimension.size(),
                present,
                rule.isIndependent()
                        ? oneByOne(members, present.length, rule, damping)
                        : together(members, rule, damping));
    }

    /** Of a group with many members only one is in memory. */
    private static RemovalOrder oneByOne(List<Supplier<LayerProblem>> members, int units, Rule rule, Damping damping) {
        double[] costs = new double[units];
        for (Supplier<LayerProblem> member : members) {
            LayerProblem quadratic = member.get();
            try {
                RemovalOrder all = GreedyRemoval.of(List.of(quadratic), units, rule, damping);
                for (int i = 0; i < units; i++) {
                    costs[all.order()[i]] += all.costs()[i];
                }
            } finally {
                close(quadratic);
            }
        }
        return RemovalOrder.cheapest(costs, Math.max(0, units - 1), damping.share());
    }

    private static RemovalOrder together(List<Supplier<LayerProblem>> members, Rule rule, Damping damping) {
        List<LayerProblem> quadratics = new ArrayList<>();
        try {
            members.forEach(member -> quadratics.add(member.get()));
            int units = quadratics.get(0).units().size();
            return GreedyRemoval.of(quadratics, Math.max(0, units - 1), rule, damping);
        } finally {
            quadratics.forEach(ObsImportance::close);
        }
    }

    private static List<int[]> chosen(List<int[]> units, int[] present) {
        return IntStream.of(present).mapToObj(units::get).toList();
    }

    /** What a product that sums over the units loses; its bias is one more input. */
    private LayerProblem reading(Product product, List<int[]> units, Statistics statistics) {
        double[] bias = biases.of(product.site);
        return new LayerProblem(
                statistics.inputs(product.linear.input(), bias != null),
                product.site.read(bias),
                loss ? statistics.gradients(product.linear.output()) : null,
                units);
    }

    /** What a product that makes the units loses: its outputs take the place of inputs. */
    private LayerProblem making(Product product, List<int[]> units, Statistics statistics) {
        double[] bias = biases.of(product.site);
        try (Matrix w = product.site.read(bias)) {
            return new LayerProblem(
                    statistics.gradients(product.linear.output()),
                    w.transposed(),
                    statistics.inputs(product.linear.input(), bias != null),
                    units);
        }
    }

    private static void close(LayerProblem quadratic) {
        quadratic.a().close();
        quadratic.w().close();
        if (quadratic.g() != null) {
            quadratic.g().close();
        }
    }

    /** The units that the model still has: those with channels. */
    private static int[] present(Job job) {
        List<int[]> units = job.readers.get(0).site.units(job.dimension);
        return IntStream.range(0, units.size())
                .filter(unit -> units.get(unit).length > 0)
                .toArray();
    }

    /** Scores of units that are removed in the order {@code present[order[0]], ...}; one that never goes is worth most. */
    static double[] hull(int size, int[] present, RemovalOrder removal) {
        double[] slopes = risingMeans(removal.costs());
        double[] scores = new double[size];
        double last = 0;
        Set<Integer> left = new HashSet<>();
        IntStream.of(present).forEach(left::add);
        for (int i = 0; i < slopes.length; i++) {
            last = i == 0 ? slopes[i] : Math.max(slopes[i], Math.nextUp(last));
            scores[present[removal.order()[i]]] = last;
            left.remove(present[removal.order()[i]]);
        }
        double most = Math.nextUp(2 * last);
        left.forEach(unit -> scores[unit] = most);
        return scores;
    }

    /** The slopes of the lower convex hull of the partial sums: neighbours that fall are averaged until all rise. */
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
