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
 * Sets those weights of the linear layers of residual blocks to zero that cost the loss least (LLM Surgeon, arXiv
 * 2312.17244). The cost is the quadratic model ½ tr(ΔWᵀ A ΔW G) / N over N positions for each layer X·W. A is XᵀX, G is
 * DᵀD, and D are the gradients of the loss by the layer's output. The other weights compensate. Costs of all matrices
 * are in the same unit, so the weights with the lowest costs of all matrices become zero. Weights that are zero already
 * cost nothing and remain zero. A bias counts as one more input, which is always 1 and always kept: this is the same as inputs about
 * their mean, with the bias taking the mean of what the weights lose.
 */
public final class SurgeonSparsification {
    /**
     * The settings of a run.
     *
     * @param pattern the sparsity pattern
     * @param share the target sparsity; for a grouped pattern at most the sparsity of the pattern
     * @param damping share of the mean diagonal of XᵀX that is added to it
     * @param gradientDamping share of the mean diagonal of DᵀD that is added to it
     * @param correlate number of elements of a matrix that one update compensates for together; 0 for all
     */
    public record Request(Pattern pattern, double share, double damping, double gradientDamping, int correlate) {}

    private final Request request;
    private final PrunedModel model;
    private final WeightStore store;
    private final Log log;
    private final BlockLayers blockLayers;
    private final BiasStore biases;
    /** The candidates of each input, which share its second moment. */
    private final Map<SparseLayer.Inputs, List<SparseLayer>> byInput = new LinkedHashMap<>();

    private final Set<SparseLayer> unreached = new HashSet<>();

    /** The factors of the cost of elements: half the squared element times the factors of its input and its output. */
    @SuppressWarnings("ArrayRecordComponent") // a holder, never compared
    private record Factors(SparseLayer candidate, double[] inputs, double[] outputs) {}

    /** Visits a candidate when both of its second moments are known. */
    private interface Visitor {
        void visit(SparseLayer candidate, KroneckerFactor inputs, KroneckerFactor outputs);
    }

    private SurgeonSparsification(PrunedModel model, Request request) {
        this.request = request;
        this.model = model;
        this.store = new WeightStore(model.folder());
        this.log = model.log();
        this.blockLayers = new BlockLayers(model.state(), model.layers());
        this.biases = new BiasStore(model.state());
        Map<Value, Tensor> updates = model.state().updates();
        for (PrunedLinear layer : model.linears()) {
            if (blockLayers.contains(layer.dense())) {
                boolean hasBias = biases.of(layer) != null;
                byInput.computeIfAbsent(
                                new SparseLayer.Inputs(layer.lowered().input(), hasBias), input -> new ArrayList<>())
                        .add(new SparseLayer(
                                layer,
                                hasBias,
                                updates.containsKey(layer.dense().weight())));
            }
        }
    }

    /**
     * The result of a run.
     *
     * @param updates new weights of the dense model
     * @param zeros the sparsity that was reached
     */
    public record Result(Map<Value, Tensor> updates, Zeros zeros) {}

    /**
     * Sets weights of {@code model} to zero.
     *
     * @throws UserException if no linear layer has a weight that may be changed, the pattern does not fit a layer,
     *     an operator has no derivative, a second moment cannot be inverted, or a run fails
     */
    public static Result run(PrunedModel model, Request request) {
        SurgeonSparsification surgeon = new SurgeonSparsification(model, request);
        surgeon.check();
        surgeon.sparsify();
        return surgeon.result();
    }

    private List<SparseLayer> all() {
        return byInput.values().stream().flatMap(List::stream).toList();
    }

    private void check() {
        if (request.pattern instanceof Pattern.Grouped grouped) {
            for (SparseLayer candidate : all()) {
                grouped.check(candidate.node(), candidate.inputs());
            }
        }
    }

    private void sparsify() {
        Set<Tap> taps = new LinkedHashSet<>();
        for (SparseLayer candidate : all()) {
            Activation input = candidate.input().activation();
            taps.add(new Tap.Positions(input));
            taps.addAll(Statistics.ofInputs(input, candidate.hasBias));
            taps.add(new Tap.GradientSecondMoment(candidate.output()));
        }
        try (Statistics statistics = model.source().of(model.calibrator(), taps)) {
            for (SparseLayer candidate : all()) {
                if (positions(statistics, candidate) == 0) {
                    blockLayers.markUnreached(candidate.node());
                }
            }
            if (request.pattern instanceof Pattern.Structured) {
                rowsAndColumns(statistics, request.share);
            } else {
                elements(statistics, request.share);
            }
        }
    }

    private static double positions(Statistics statistics, SparseLayer candidate) {
        return candidate.input().count(statistics);
    }

    /** Visits all candidates that tokens reach. */
    private void forEach(Statistics statistics, String stage, Visitor visitor) {
        try (Progress progress = log.progress(stage, all().size())) {
            byInput.forEach((input, candidates) -> {
                if (positions(statistics, candidates.get(0)) == 0) {
                    return;
                }
                try (KroneckerFactor inputs =
                        KroneckerFactor.of(input.moment(statistics), inputDamping(statistics, candidates.get(0)))) {
                    for (SparseLayer candidate : candidates) {
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

    private Damping inputDamping(Statistics statistics, SparseLayer candidate) {
        return new Damping(request.damping, (long) positions(statistics, candidate), candidate.node(), log);
    }

    private Damping outputDamping(Statistics statistics, SparseLayer candidate) {
        return new Damping(
                request.gradientDamping,
                (long) positions(statistics, candidate),
                candidate.node() + ", gradients",
                log);
    }

    private void elements(Statistics statistics, double share) {
        Map<SparseLayer, Factors> factors = new LinkedHashMap<>();
        forEach(statistics, "costs", (candidate, inputs, outputs) -> {
            warnIfUnreached(candidate, outputs);
            double[] byOutput = scaled(outputs.weights(), 0.5 / positions(statistics, candidate));
            factors.put(candidate, new Factors(candidate, inputs.weights(), byOutput));
        });
        Threshold threshold = threshold(factors.values(), share);
        forEach(statistics, "weights", (candidate, inputs, outputs) -> {
            // This keeps the order and the weights with which the threshold was found.
            BitSet[] zeros = zeros(factors.get(candidate), threshold);
            try (Matrix w = candidate.readByOutput()) {
                if (request.correlate == 0) {
                    ElementUpdate.together(inputs, outputs, w, zeros);
                } else {
                    ElementUpdate.inGroups(inputs, outputs, w, zeros, request.correlate);
                }
                try (Matrix transposed = w.transposed()) {
                    replace(candidate, transposed, statistics);
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
        // The number of zeros that each chosen group yields.
        int together = request.pattern instanceof Pattern.Grouped grouped ? grouped.zeros() : 1;
        return Threshold.lowest(
                Math.round(elements * share / together), sink -> factors.forEach(found -> forEachCost(found, sink)));
    }

    /** Hands over the costs, output by output: one for each group of a grouped pattern, else one for each element. */
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

    /** The elements that become zero, for each output. */
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

    /** Fills {@code costs} for one output after the other. Only elements that are zero already cost exactly nothing. */
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

    /** Sets whole rows and columns of matrices to zero. */
    private void rowsAndColumns(Statistics statistics, double share) {
        List<SparseLayer> read = new ArrayList<>();
        RowColumnPruning rowsAndColumns = new RowColumnPruning();
        forEach(statistics, "costs", (candidate, inputs, outputs) -> {
            warnIfUnreached(candidate, outputs);
            double scale = 1 / positions(statistics, candidate);
            try (Matrix w = candidate.read();
                    Matrix transposed = w.transposed()) {
                rowsAndColumns.add(
                        scaled(multiplied(outputs.halfForms(transposed), inputs.weights()), scale),
                        scaled(multiplied(inputs.halfForms(w), outputs.weights()), scale));
            }
            read.add(candidate);
        });
        rowsAndColumns.choose(share);
        for (int index = 0; index < read.size(); index++) {
            SparseLayer candidate = read.get(index);
            try (Matrix a = candidate.input().moment(statistics);
                    Matrix g = statistics.gradients(candidate.output());
                    Matrix w = candidate.read();
                    Matrix updated = LeastSquares.keep(
                            a,
                            g,
                            w,
                            rowsAndColumns.keptInputs(index),
                            rowsAndColumns.keptOutputs(index),
                            inputDamping(statistics, candidate),
                            outputDamping(statistics, candidate))) {
                replace(candidate, updated, statistics);
            }
        }
    }

    private void warnIfUnreached(SparseLayer candidate, KroneckerFactor outputs) {
        if (DoubleStream.of(outputs.weights()).allMatch(weight -> weight == 0) && unreached.add(candidate)) {
            log.warn("no gradient reaches node " + candidate.node()
                    + ", so its weights cost nothing and become zero first");
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

    private void replace(SparseLayer candidate, Matrix w, Statistics statistics) {
        if (candidate.hasBias) {
            try (Matrix before = candidate.read()) {
                double[] total = candidate.input().total(statistics);
                biases.follow(
                        candidate.layer, before, w, total, candidate.input().count(statistics));
            }
        }
        candidate.weight = candidate.layer.toPruned(w, store);
        candidate.changed = true;
    }

    private Result result() {
        blockLayers.warn(log);
        Zeros zeros = Zeros.NONE;
        for (SparseLayer candidate : all()) {
            if (candidate.changed) {
                try (Matrix w = candidate.read()) {
                    zeros = zeros.and(w);
                }
            }
        }
        return new Result(updates(), zeros);
    }

    /** New weights and biases of the dense model. */
    private Map<Value, Tensor> updates() {
        Map<Value, Tensor> updates = new HashMap<>(biases.updates());
        for (SparseLayer candidate : all()) {
            if (candidate.changed) {
                updates.put(candidate.layer.dense().weight(), candidate.layer.toDense(candidate.weight, store));
            }
        }
        return updates;
    }
}
