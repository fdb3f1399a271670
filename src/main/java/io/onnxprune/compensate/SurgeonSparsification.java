// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.Activation;
import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.LoweredLinear;
import io.onnxprune.calibrate.Statistics;
import io.onnxprune.calibrate.Tap;
import io.onnxprune.compensate.Sparsification.Zeros;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.Log.Progress;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.obs.Damping;
import io.onnxprune.obs.ElementUpdate;
import io.onnxprune.obs.KroneckerFactor;
import io.onnxprune.obs.LeastSquares;
import io.onnxprune.obs.Pattern;
import io.onnxprune.obs.RowColumnPruning;
import io.onnxprune.obs.Threshold;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.rewrite.PrunedState;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.function.DoubleConsumer;
import java.util.function.IntConsumer;
import java.util.function.Supplier;
import java.util.stream.DoubleStream;

/**
 * Zeros within the weights of all products of residual blocks where they cost the loss least, in its quadratic model
 * ½ tr(ΔWᵀ A ΔW G) / N for each product X·W, with A = XᵀX and G = DᵀD over N positions, D the gradients of the loss by the
 * product; the other weights make up for them (The LLM Surgeon, arXiv 2312.17244). Costs of all matrices are in the same unit, so
 * the lowest of all go, wherever they are, and zeros that a model has already cost nothing and stay.
 */
public final class SurgeonSparsification {
    /**
     * What is asked for.
     *
     * @param share of zeros; of groups, no more than they can have
     * @param steps in how many equal steps, each measured anew
     * @param damping share of the mean diagonal of XᵀX that is added to it
     * @param gradientDamping share of the mean diagonal of DᵀD that is added to it
     * @param correlate how many elements of a matrix are made up for together; 0 for all
     */
    public record Request(
            Pattern pattern, double share, int steps, double damping, double gradientDamping, int correlate) {}

    private final Request request;
    private final Statistics.Source source;
    private final WeightStore store;
    private final Log log;
    private final BlockLayers products;
    /** Products that share an input together, since they share its second moment. */
    private final Map<Activation, List<Product>> sharing = new LinkedHashMap<>();

    private final Set<Product> unreached = new HashSet<>();

    private Calibrator calibrator;

    /** A product in the model that is measured and in the original, with its present weight. */
    private static final class Product {
        private final LoweredLinear linear;
        private final PrunedLinear site;
        private Tensor weight;
        private boolean changed;

        Product(LoweredLinear linear, PrunedLinear site, boolean changed) {
            this.linear = linear;
            this.site = site;
            this.weight = site.weight();
            this.changed = changed;
        }

        String node() {
            return site.consumer().node();
        }

        int inputs() {
            return site.rows().length;
        }

        /** {@code [n, out]}. */
        Matrix read() {
            return WeightStore.read(weight, site.consumer().axis());
        }

        /** {@code [out, n]}. */
        Matrix readByOutput() {
            return WeightStore.read(weight, 1 - site.consumer().axis());
        }
    }

    /** What elements cost: half their square times what their input and their output contribute. */
    @SuppressWarnings("ArrayRecordComponent") // a holder, never compared
    private record Factors(Product product, double[] inputs, double[] outputs) {}

    /** What happens to a product once the second moments are known, those of the gradients last. */
    private interface Visitor {
        void visit(Product product, KroneckerFactor inputs, KroneckerFactor outputs);
    }

    private SurgeonSparsification(
            PrunedState state,
            LinearLayers consumers,
            Calibrator calibrator,
            Statistics.Source source,
            Request request,
            Path folder,
            Log log) {
        this.request = request;
        this.calibrator = calibrator;
        this.source = source;
        this.store = new WeightStore(folder);
        this.log = log;
        this.products = new BlockLayers(state, consumers);
        PrunedLinears sites = new PrunedLinears(state, consumers);
        Set<LinearLayer> found = new HashSet<>();
        for (LoweredLinear linear : calibrator.linears()) {
            PrunedLinear site = sites.of(linear);
            if (site != null && products.contains(site.consumer()) && found.add(site.consumer())) {
                sharing.computeIfAbsent(linear.input(), input -> new ArrayList<>())
                        .add(new Product(
                                linear,
                                site,
                                state.updates().containsKey(site.consumer().weight())));
            }
        }
    }

    /** New weights of the original, and how many of their elements are zero. */
    public record Result(Map<Value, Tensor> updates, Zeros zeros) {}

    /** Told of what each step has come to, so that a stopped run can go on. */
    public interface Observer {
        /**
         * After a step.
         *
         * @param updates makes the new weights of the original so far
         */
        void done(int step, Supplier<Map<Value, Tensor>> updates);
    }

    /**
     * Makes zeros in the model of {@code state}.
     *
     * @param calibrator of that model
     * @param done steps that the model has behind it
     * @param source measures it, and what earlier steps made of it
     * @param folder for files of new weights
     * @throws UserException if no product has a weight that may change, the pattern does not fit one, an operator has no
     *     derivative, a second moment cannot be inverted, or a run fails
     */
    public static Result run(
            PrunedState state,
            LinearLayers consumers,
            Calibrator calibrator,
            Statistics.Source source,
            Request request,
            int done,
            Observer observer,
            Path folder,
            Log log) {
        SurgeonSparsification surgeon =
                new SurgeonSparsification(state, consumers, calibrator, source, request, folder, log);
        surgeon.check();
        for (int step = done + 1; step <= request.steps; step++) {
            surgeon.step(request.share * step / request.steps);
            observer.done(step, surgeon::updates);
        }
        return surgeon.result();
    }

    private List<Product> all() {
        return sharing.values().stream().flatMap(List::stream).toList();
    }

    private void check() {
        if (request.pattern instanceof Pattern.Grouped grouped) {
            for (Product product : all()) {
                grouped.check(product.node(), product.inputs());
            }
        }
    }

    private void step(double share) {
        if (request.steps > 1) {
            log.info(String.format(Locale.ROOT, "making up to %.1f %% of the weights zero", 100 * share));
        }
        Set<Tap> taps = new LinkedHashSet<>();
        for (Product product : all()) {
            taps.add(new Tap.Positions(product.linear.input()));
            taps.add(new Tap.SecondMoment(product.linear.input()));
            taps.add(new Tap.GradientSecondMoment(product.linear.output()));
        }
        try (Statistics statistics = source.of(calibrator, taps)) {
            for (Product product : all()) {
                if (positions(statistics, product) == 0) {
                    products.unread(product.node());
                }
            }
            if (request.pattern instanceof Pattern.Structured) {
                strips(statistics, share);
            } else {
                elements(statistics, share);
            }
        }
        Map<String, Tensor> weights = new HashMap<>();
        all().stream()
                .filter(product -> product.changed)
                .forEach(product -> weights.put(product.linear.weight(), product.weight));
        calibrator = calibrator.withWeights(weights);
    }

    private static double positions(Statistics statistics, Product product) {
        return statistics
                .sum(new Tap.Positions(product.linear.input()))
                .asFloats()
                .get(0);
    }

    /** Visits all products that read anything. */
    private void forEach(Statistics statistics, String stage, Visitor visitor) {
        try (Progress progress = log.progress(stage, all().size())) {
            sharing.forEach((input, readers) -> {
                if (positions(statistics, readers.get(0)) == 0) {
                    return;
                }
                try (KroneckerFactor inputs =
                        KroneckerFactor.of(statistics.inputs(input), inputDamping(statistics, readers.get(0)))) {
                    for (Product product : readers) {
                        try (KroneckerFactor outputs = KroneckerFactor.of(
                                statistics.gradients(product.linear.output()), outputDamping(statistics, product))) {
                            visitor.visit(product, inputs, outputs);
                        }
                        progress.step(1);
                    }
                }
            });
        }
    }

    private Damping inputDamping(Statistics statistics, Product product) {
        return new Damping(request.damping, (long) positions(statistics, product), product.node(), log);
    }

    private Damping outputDamping(Statistics statistics, Product product) {
        return new Damping(
                request.gradientDamping, (long) positions(statistics, product), product.node() + ", gradients", log);
    }

    private void elements(Statistics statistics, double share) {
        Map<Product, Factors> factors = new LinkedHashMap<>();
        forEach(statistics, "costs", (product, inputs, outputs) -> {
            noteUnreached(product, outputs);
            double[] byOutput = scaled(outputs.weights(), 0.5 / positions(statistics, product));
            factors.put(product, new Factors(product, inputs.weights(), byOutput));
        });
        Threshold threshold = threshold(factors.values(), share);
        forEach(statistics, "weights", (product, inputs, outputs) -> {
            // In the order that the threshold was found in, each by the weights that it was found on.
            BitSet[] zeros = zeros(factors.get(product), threshold);
            try (Matrix w = product.readByOutput()) {
                if (request.correlate == 0) {
                    ElementUpdate.together(inputs, outputs, w, zeros);
                } else {
                    ElementUpdate.inGroups(inputs, outputs, w, zeros, request.correlate);
                }
                try (Matrix turned = w.transposed()) {
                    replace(product, turned);
                }
            }
        });
    }

    private Threshold threshold(Collection<Factors> factors, double share) {
        if (request.pattern instanceof Pattern.Grouped && share == request.pattern.share()) {
            return Threshold.all();
        }
        double elements = factors.stream()
                .mapToDouble(found -> (double) found.inputs.length * found.outputs.length)
                .sum();
        // Each group that is chosen yields so many zeros.
        int together = request.pattern instanceof Pattern.Grouped grouped ? grouped.zeros() : 1;
        return Threshold.lowest(
                Math.round(elements * share / together), sink -> factors.forEach(found -> forEachCost(found, sink)));
    }

    /** Hands over the costs of what becomes zero together, output by output. */
    private void forEachCost(Factors factors, DoubleConsumer sink) {
        double[] costs = new double[factors.inputs.length];
        forEachOutput(factors, costs, j -> {
            if (request.pattern instanceof Pattern.Grouped grouped) {
                for (int i = 0; i < costs.length; i += grouped.of()) {
                    sink.accept(grouped.cost(costs, i));
                }
            } else {
                for (double cost : costs) {
                    sink.accept(cost);
                }
            }
        });
    }

    /** What becomes zero, for each output. */
    private BitSet[] zeros(Factors factors, Threshold threshold) {
        BitSet[] zeros = new BitSet[factors.outputs.length];
        double[] costs = new double[factors.inputs.length];
        forEachOutput(factors, costs, j -> {
            zeros[j] = new BitSet(costs.length);
            if (request.pattern instanceof Pattern.Grouped grouped) {
                for (int i = 0; i < costs.length; i += grouped.of()) {
                    if (threshold.takes(grouped.cost(costs, i))) {
                        grouped.mark(costs, i, zeros[j]);
                    }
                }
            } else {
                for (int i = 0; i < costs.length; i++) {
                    zeros[j].set(i, threshold.takes(costs[i]));
                }
            }
            for (int i = 0; i < costs.length; i++) {
                zeros[j].set(i, zeros[j].get(i) || costs[i] == 0);
            }
        });
        return zeros;
    }

    /** Fills {@code costs} for one output after the other; only a zero costs nothing at all. */
    private static void forEachOutput(Factors factors, double[] costs, IntConsumer then) {
        try (Matrix w = factors.product.readByOutput()) {
            for (int j = 0; j < w.rows(); j++) {
                w.getRow(j, costs);
                for (int i = 0; i < costs.length; i++) {
                    double cost = costs[i] * costs[i] * factors.inputs[i] * factors.outputs[j];
                    costs[i] = costs[i] == 0 ? 0 : Math.max(Double.MIN_NORMAL, cost);
                }
                then.accept(j);
            }
        }
    }

    /** Whole inputs and outputs of matrices. */
    private void strips(Statistics statistics, double share) {
        List<Product> read = new ArrayList<>();
        RowColumnPruning strips = new RowColumnPruning();
        forEach(statistics, "costs", (product, inputs, outputs) -> {
            noteUnreached(product, outputs);
            double scale = 1 / positions(statistics, product);
            try (Matrix w = product.read();
                    Matrix turned = w.transposed()) {
                strips.add(
                        scaled(multiplied(outputs.halfForms(turned), inputs.weights()), scale),
                        scaled(multiplied(inputs.halfForms(w), outputs.weights()), scale));
            }
            read.add(product);
        });
        strips.choose(share);
        for (int index = 0; index < read.size(); index++) {
            Product product = read.get(index);
            try (Matrix a = statistics.inputs(product.linear.input());
                    Matrix g = statistics.gradients(product.linear.output());
                    Matrix w = product.read();
                    Matrix left = LeastSquares.keep(
                            a,
                            g,
                            w,
                            strips.keptInputs(index),
                            strips.keptOutputs(index),
                            inputDamping(statistics, product),
                            outputDamping(statistics, product))) {
                replace(product, left);
            }
        }
    }

    private void noteUnreached(Product product, KroneckerFactor outputs) {
        if (DoubleStream.of(outputs.weights()).allMatch(weight -> weight == 0) && unreached.add(product)) {
            log.warn("no gradient reaches node " + product.node()
                    + ", so its weights cost nothing and are the first to become zero");
        }
    }

    private static double[] multiplied(double[] costs, double[] weights) {
        for (int i = 0; i < costs.length; i++) {
            costs[i] *= weights[i];
        }
        return costs;
    }

    private static double[] scaled(double[] values, double factor) {
        for (int i = 0; i < values.length; i++) {
            values[i] *= factor;
        }
        return values;
    }

    private void replace(Product product, Matrix w) {
        product.weight = product.site.narrow(w, store);
        product.changed = true;
    }

    private Result result() {
        products.warn(log);
        Zeros zeros = Zeros.NONE;
        for (Product product : all()) {
            if (product.changed) {
                try (Matrix w = product.read()) {
                    zeros = zeros.and(w);
                }
            }
        }
        return new Result(updates(), zeros);
    }

    /** New weights of the original so far. */
    private Map<Value, Tensor> updates() {
        Map<Value, Tensor> updates = new HashMap<>();
        for (Product product : all()) {
            if (product.changed) {
                updates.put(product.site.consumer().weight(), product.site.wide(product.weight, store));
            }
        }
        return updates;
    }
}
