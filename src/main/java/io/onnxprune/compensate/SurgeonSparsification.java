// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.Activation;
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
import java.util.ArrayList;
import java.util.BitSet;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.DoubleConsumer;
import java.util.function.IntConsumer;
import java.util.stream.DoubleStream;

/**
 * Zeros within the weights of all blocks of residual blocks where they cost the loss least, in its quadratic model
 * ½ tr(ΔWᵀ A ΔW G) / N for each candidate X·W, with A = XᵀX and G = DᵀD over N positions, D the gradients of the loss by the
 * candidate; the other weights make up for them (The LLM Surgeon, arXiv 2312.17244). Costs of all matrices are in the same unit, so
 * the lowest of all go, wherever they are, and zeros that a model has already cost nothing and stay.
 */
public final class SurgeonSparsification {
    /**
     * What is asked for.
     *
     * @param share of zeros; of groups, no more than they can have
     * @param damping share of the mean diagonal of XᵀX that is added to it
     * @param gradientDamping share of the mean diagonal of DᵀD that is added to it
     * @param correlate how many elements of a matrix are made up for together; 0 for all
     */
    public record Request(Pattern pattern, double share, double damping, double gradientDamping, int correlate) {}

    private final Request request;
    private final PrunedModel model;
    private final WeightStore store;
    private final Log log;
    private final BlockLayers blocks;
    /** Candidates that share an input together, since they share its second moment. */
    private final Map<Activation, List<Candidate>> sharing = new LinkedHashMap<>();

    private final Set<Candidate> unreached = new HashSet<>();

    /** A candidate in the model that is measured and in the original, with its present weight. */
    private static final class Candidate {
        private final PrunedLinear layer;
        private Tensor weight;
        private boolean changed;

        Candidate(PrunedLinear layer, boolean changed) {
            this.layer = layer;
            this.weight = layer.weight();
            this.changed = changed;
        }

        Activation input() {
            return layer.lowered().input();
        }

        Activation output() {
            return layer.lowered().output();
        }

        String node() {
            return layer.node();
        }

        int inputs() {
            return layer.rows().length;
        }

        /** {@code [n, out]}. */
        Matrix read() {
            return WeightStore.read(weight, layer.dense().axis());
        }

        /** {@code [out, n]}. */
        Matrix readByOutput() {
            return WeightStore.read(weight, 1 - layer.dense().axis());
        }
    }

    /** What elements cost: half their square times what their input and their output contribute. */
    @SuppressWarnings("ArrayRecordComponent") // a holder, never compared
    private record Factors(Candidate candidate, double[] inputs, double[] outputs) {}

    /** What happens to a candidate once the second moments are known, those of the gradients last. */
    private interface Visitor {
        void visit(Candidate candidate, KroneckerFactor inputs, KroneckerFactor outputs);
    }

    private SurgeonSparsification(PrunedModel model, Request request) {
        this.request = request;
        this.model = model;
        this.store = new WeightStore(model.folder());
        this.log = model.log();
        this.blocks = new BlockLayers(model.state(), model.layers());
        Map<Value, Tensor> updates = model.state().updates();
        for (PrunedLinear layer : model.linears()) {
            if (blocks.contains(layer.dense())) {
                sharing.computeIfAbsent(layer.lowered().input(), input -> new ArrayList<>())
                        .add(new Candidate(
                                layer, updates.containsKey(layer.dense().weight())));
            }
        }
    }

    /** New weights of the dense model, and the number of their elements that are zero. */
    public record Result(Map<Value, Tensor> updates, Zeros zeros) {}

    /**
     * Makes weights of {@code model} zero.
     *
     * @throws UserException if no linear layer has a weight that may change, the pattern does not fit one, an operator has no
     *     derivative, a second moment cannot be inverted, or a run fails
     */
    public static Result run(PrunedModel model, Request request) {
        SurgeonSparsification surgeon = new SurgeonSparsification(model, request);
        surgeon.check();
        surgeon.sparsify();
        return surgeon.result();
    }

    private List<Candidate> all() {
        return sharing.values().stream().flatMap(List::stream).toList();
    }

    private void check() {
        if (request.pattern instanceof Pattern.Grouped grouped) {
            for (Candidate candidate : all()) {
                grouped.check(candidate.node(), candidate.inputs());
            }
        }
    }

    private void sparsify() {
        Set<Tap> taps = new LinkedHashSet<>();
        for (Candidate candidate : all()) {
            taps.add(new Tap.Positions(candidate.input()));
            taps.add(new Tap.SecondMoment(candidate.input()));
            taps.add(new Tap.GradientSecondMoment(candidate.output()));
        }
        try (Statistics statistics = model.source().of(model.calibrator(), taps)) {
            for (Candidate candidate : all()) {
                if (positions(statistics, candidate) == 0) {
                    blocks.unread(candidate.node());
                }
            }
            if (request.pattern instanceof Pattern.Structured) {
                strips(statistics, request.share);
            } else {
                elements(statistics, request.share);
            }
        }
    }

    private static double positions(Statistics statistics, Candidate candidate) {
        return statistics.sum(new Tap.Positions(candidate.input())).asFloats().get(0);
    }

    /** Visits all blocks that read anything. */
    private void forEach(Statistics statistics, String stage, Visitor visitor) {
        try (Progress progress = log.progress(stage, all().size())) {
            sharing.forEach((input, readers) -> {
                if (positions(statistics, readers.get(0)) == 0) {
                    return;
                }
                try (KroneckerFactor inputs =
                        KroneckerFactor.of(statistics.inputs(input), inputDamping(statistics, readers.get(0)))) {
                    for (Candidate candidate : readers) {
                        try (KroneckerFactor outputs = KroneckerFactor.of(
                                statistics.gradients(candidate.output()), outputDamping(statistics, candidate))) {
                            visitor.visit(candidate, inputs, outputs);
                        }
                        progress.step(1);
                    }
                }
            });
        }
    }

    private Damping inputDamping(Statistics statistics, Candidate candidate) {
        return new Damping(request.damping, (long) positions(statistics, candidate), candidate.node(), log);
    }

    private Damping outputDamping(Statistics statistics, Candidate candidate) {
        return new Damping(
                request.gradientDamping,
                (long) positions(statistics, candidate),
                candidate.node() + ", gradients",
                log);
    }

    private void elements(Statistics statistics, double share) {
        Map<Candidate, Factors> factors = new LinkedHashMap<>();
        forEach(statistics, "costs", (candidate, inputs, outputs) -> {
            noteUnreached(candidate, outputs);
            double[] byOutput = scaled(outputs.weights(), 0.5 / positions(statistics, candidate));
            factors.put(candidate, new Factors(candidate, inputs.weights(), byOutput));
        });
        Threshold threshold = threshold(factors.values(), share);
        forEach(statistics, "weights", (candidate, inputs, outputs) -> {
            // In the order that the threshold was found in, each by the weights that it was found on.
            BitSet[] zeros = zeros(factors.get(candidate), threshold);
            try (Matrix w = candidate.readByOutput()) {
                if (request.correlate == 0) {
                    ElementUpdate.together(inputs, outputs, w, zeros);
                } else {
                    ElementUpdate.inGroups(inputs, outputs, w, zeros, request.correlate);
                }
                try (Matrix turned = w.transposed()) {
                    replace(candidate, turned);
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
        try (Matrix w = factors.candidate.readByOutput()) {
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
        List<Candidate> read = new ArrayList<>();
        RowColumnPruning strips = new RowColumnPruning();
        forEach(statistics, "costs", (candidate, inputs, outputs) -> {
            noteUnreached(candidate, outputs);
            double scale = 1 / positions(statistics, candidate);
            try (Matrix w = candidate.read();
                    Matrix turned = w.transposed()) {
                strips.add(
                        scaled(multiplied(outputs.halfForms(turned), inputs.weights()), scale),
                        scaled(multiplied(inputs.halfForms(w), outputs.weights()), scale));
            }
            read.add(candidate);
        });
        strips.choose(share);
        for (int index = 0; index < read.size(); index++) {
            Candidate candidate = read.get(index);
            try (Matrix a = statistics.inputs(candidate.input());
                    Matrix g = statistics.gradients(candidate.output());
                    Matrix w = candidate.read();
                    Matrix left = LeastSquares.keep(
                            a,
                            g,
                            w,
                            strips.keptInputs(index),
                            strips.keptOutputs(index),
                            inputDamping(statistics, candidate),
                            outputDamping(statistics, candidate))) {
                replace(candidate, left);
            }
        }
    }

    private void noteUnreached(Candidate candidate, KroneckerFactor outputs) {
        if (DoubleStream.of(outputs.weights()).allMatch(weight -> weight == 0) && unreached.add(candidate)) {
            log.warn("no gradient reaches node " + candidate.node()
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

    private void replace(Candidate candidate, Matrix w) {
        candidate.weight = candidate.layer.toPruned(w, store);
        candidate.changed = true;
    }

    private Result result() {
        blocks.warn(log);
        Zeros zeros = Zeros.NONE;
        for (Candidate candidate : all()) {
            if (candidate.changed) {
                try (Matrix w = candidate.read()) {
                    zeros = zeros.and(w);
                }
            }
        }
        return new Result(updates(), zeros);
    }

    /** New weights of the original so far. */
    private Map<Value, Tensor> updates() {
        Map<Value, Tensor> updates = new HashMap<>();
        for (Candidate candidate : all()) {
            if (candidate.changed) {
                updates.put(candidate.layer.dense().weight(), candidate.layer.toOriginal(candidate.weight, store));
            }
        }
        return updates;
    }
}
