// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.Divergence;
import io.onnxprune.calibrate.Objective;
import io.onnxprune.calibrate.Statistics;
import io.onnxprune.calibrate.Tap;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Dimension;
import io.onnxprune.ir.CheckpointFile;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.plan.ParameterCount;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.Scores;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.function.Function;

/**
 * Trains the scores of units by gradients of the final loss: the KL divergence of the pruned model from the dense one. Each unit
 * has a gate at the inputs of its consumers, open for the units that a plan keeps. The plan is made anew from the scores for
 * every batch, so it always meets the budget. Gates have derivatives whether they are open or not, and these go
 * straight through the choice to the scores (top-k masks as in GRASPrune and DISP-LLM, arXiv 2410.11988). Weights are
 * not trained, but those of the consumers are solved anew for each plan, since that is what happens after pruning.
 *
 * <p>The logits of the dense model are computed from its last hidden states, which are stored once, beside each batch: they take a
 * width instead of a vocabulary for each token. Some rows are set aside. The scores of the epoch with the least
 * divergence on them win, and training stops when three epochs have not lowered it. A bias does not compensate here.
 */
public final class GateTraining {
    /**
     * How scores are trained.
     *
     * @param epochs most passes over the rows
     * @param batch rows of a step
     * @param rate how far a score moves in the first step, in units of the logarithm of importance; it falls evenly to
     *     zero
     * @param temperature τ of the probability σ(s / τ) that a gate is open
     * @param damping added to the diagonal of XᵀX for the weights that compensate, as a share of its mean; negative
     *     for weights that do not compensate
     */
    public record Settings(int epochs, int batch, double rate, double temperature, double damping) {}

    /**
     * What is trained on.
     *
     * @param dense runs the dense model
     * @param rows token ids, all of one length; the last eighth is set aside
     * @param seed of the order of batches
     */
    public record Data(Calibrator dense, List<long[]> rows, long seed) {}

    /**
     * The ranking that scores are for.
     *
     * @param scores to start from
     * @param perParameter whether scores are divided by the parameters of a unit
     * @param plan makes a plan of scores
     */
    public record Ranking(Scores scores, boolean perParameter, Function<Scores, Plan> plan) {}

    /**
     * The trained scores.
     *
     * @param before mean divergence in nats a token on the rows that were set aside, with the scores of the start
     * @param after with these scores
     * @param epochs that were run
     */
    public record Result(Scores scores, double before, double after, int epochs) {}

    /** Epochs without a lower divergence after which training stops. */
    private static final int PATIENCE = 3;

    /** One of so many rows is set aside. */
    private static final int HELD_OUT = 8;

    private final PrunedModel model;
    private final Data data;
    private final Ranking ranking;
    private final Settings settings;
    private final Log log;
    private final WeightStore store;
    private final List<GatedLayer> layers = new ArrayList<>();
    private final GateScores gates;

    /** The progress at the end of an epoch. */
    private static final class Progress {
        private int epoch;
        private int bestEpoch;
        private double before;
        private double best;
        private Map<String, float[]> scores;
    }

    private GateTraining(PrunedModel model, Data data, Ranking ranking, Settings settings) {
        this.model = model;
        this.data = data;
        this.ranking = ranking;
        this.settings = settings;
        this.log = model.log();
        this.store = new WeightStore(model.folder());
        this.gates = new GateScores(ranking.scores, sizes(), ranking.plan.apply(ranking.scores));
        Map<LinearLayer, PrunedLinear> linears = new LinkedHashMap<>();
        model.linears().forEach(layer -> linears.put(layer.dense(), layer));
        Map<PrunedLinear, List<Dimension>> dimensions = new LinkedHashMap<>();
        for (Dimension dimension : gates.zeros().keySet()) {
            for (LinearLayer consumer : model.layers().of(dimension)) {
                if (linears.containsKey(consumer)) {
                    dimensions
                            .computeIfAbsent(linears.get(consumer), key -> new ArrayList<>())
                            .add(dimension);
                }
            }
        }
        dimensions.forEach((layer, own) -> layers.add(GatedLayer.of(layer, own, settings.damping)));
    }

    /** The scored dimensions all of whose consumers are known, with what the scores of their units are divided by. */
    private Map<Dimension, Double> sizes() {
        ParameterCount count = ParameterCount.of(model.state().structure());
        Map<Dimension, Double> sizes = new LinkedHashMap<>();
        for (Dimension dimension : model.state().structure().dimensions()) {
            boolean scored = dimension.isPrunable() && ranking.scores.units().containsKey(dimension.name());
            if (scored && model.layers().reason(dimension, false) == null) {
                long parameters = Math.max(1, count.unit(dimension).parameters());
                sizes.put(dimension, ranking.perParameter ? parameters : 1.0);
            }
        }
        return sizes;
    }

    /**
     * Trains scores.
     *
     * @param model the model as it is, whose units get gates
     * @param checkpoint saves each epoch and lets a stopped run resume; empty for none
     * @throws UserException if there are too few rows to set some aside, an operator has no derivative, or a run fails
     */
    public static Result run(
            PrunedModel model, Data data, Ranking ranking, Settings settings, Optional<CheckpointFile> checkpoint) {
        if (data.rows.size() < 2) {
            throw new UserException(
                    "gates are trained on some rows and tried on others, but there is only one row; give"
                            + " two or more");
        }
        return new GateTraining(model, data, ranking, settings).run(checkpoint);
    }

    private Result run(Optional<CheckpointFile> checkpoint) {
        int split = data.rows.size() - Math.max(1, data.rows.size() / HELD_OUT);
        List<long[]> train = data.rows.subList(0, split);
        List<long[]> rest = data.rows.subList(split, data.rows.size());
        try (Divergence steps = Divergence.from(data.dense, model.calibrator(), train, settings.batch);
                Divergence heldOut = Divergence.from(data.dense, model.calibrator(), rest);
                Statistics whole = moments(model.calibrator(), train)) {
            Progress at =
                    checkpoint.flatMap(file -> file.load(this::restored)).orElseGet(() -> start(heldOut, train, whole));
            while (at.epoch < settings.epochs && at.epoch - at.bestEpoch < PATIENCE) {
                epoch(at, steps.parts(settings.batch), heldOut, train, whole);
                if (at.epoch < settings.epochs) {
                    checkpoint.ifPresent(file -> file.save(content(at)));
                }
            }
            gates.take(at.scores);
            return new Result(at.bestEpoch == 0 ? ranking.scores : gates.scores(), at.before, at.best, at.epoch);
        }
    }

    private Progress start(Objective heldOut, List<long[]> train, Statistics whole) {
        Progress start = new Progress();
        Plan plan = ranking.plan.apply(ranking.scores);
        try (Statistics statistics = pruned(plan, train, whole)) {
            start.before = divergence(heldOut, plan, statistics);
        }
        start.best = start.before;
        start.scores = gates.copy();
        return start;
    }

    /** The rate of a step, which falls evenly to zero. */
    private double rate(int step, int steps) {
        return settings.rate * (1 - (double) step / (steps * settings.epochs));
    }

    private void epoch(Progress at, List<Objective> steps, Objective heldOut, List<long[]> train, Statistics whole) {
        List<Objective> order = new ArrayList<>(steps);
        Collections.shuffle(order, new Random(data.seed + at.epoch));
        try (Statistics statistics = pruned(plan(), train, whole)) {
            for (int i = 0; i < order.size(); i++) {
                double rate = rate(at.epoch * order.size() + i, order.size());
                gates.step(derivatives(order.get(i), plan(), statistics), rate, settings.temperature);
                gates.centre(plan());
            }
        }
        at.epoch++;
        double reached;
        try (Statistics statistics = pruned(plan(), train, whole)) {
            reached = divergence(heldOut, plan(), statistics);
        }
        log.info(String.format(
                Locale.ROOT,
                "gates, epoch %d of %d: divergence from the dense model %.4f (start: %.4f) on %s",
                at.epoch,
                settings.epochs,
                reached,
                at.before,
                "rows that are set aside"));
        if (reached < at.best) {
            at.best = reached;
            at.bestEpoch = at.epoch;
            at.scores = gates.copy();
        }
    }

    private Plan plan() {
        return ranking.plan.apply(gates.scores());
    }

    /** Second moments of the inputs of consumers in the model under {@code plan}, with weights solved by {@code whole}. */
    private Statistics pruned(Plan plan, List<long[]> rows, Statistics whole) {
        return moments(model.calibrator().withWeights(weights(plan, whole)), rows);
    }

    private Statistics moments(Calibrator calibrator, List<long[]> rows) {
        List<Tap> taps = layers.stream()
                .filter(GatedLayer::compensates)
                .map(GatedLayer::moment)
                .distinct()
                .toList();
        return Statistics.measure(calibrator, rows, taps);
    }

    private Map<String, Tensor> weights(Plan plan, Statistics statistics) {
        Map<String, Tensor> weights = new HashMap<>();
        for (GatedLayer layer : layers) {
            try (Matrix solved = layer.solved(plan, statistics, log)) {
                weights.put(layer.weight(), layer.layer().toPruned(solved, store));
            }
        }
        return weights;
    }

    private double divergence(Objective rows, Plan plan, Statistics statistics) {
        return Arrays.stream(model.calibrator()
                        .withWeights(weights(plan, statistics))
                        .losses(rows))
                .average()
                .orElseThrow();
    }

    private Map<Dimension, double[]> derivatives(Objective rows, Plan plan, Statistics statistics) {
        Map<Tap, GatedLayer> taps = new LinkedHashMap<>();
        layers.forEach(layer -> taps.put(new Tap.Gradient(layer.weight()), layer));
        Map<String, Tensor> weights = weights(plan, statistics);
        Map<Dimension, double[]> sums = gates.zeros();
        model.calibrator().withWeights(weights).gather(rows, taps.keySet(), (tap, sum) -> {
            GatedLayer layer = taps.get(tap);
            try (Matrix solved = WeightStore.read(
                    weights.get(layer.weight()), layer.layer().dense().axis())) {
                Tensor gradient = Tensor.ofFloats(sum.dtype(), sum.shape(), sum.toFloats());
                layer.add(gradient, solved, plan, statistics, sums, log);
            }
        });
        return sums;
    }

    private CheckpointFile.Content content(Progress at) {
        Map<String, String> texts = new HashMap<>();
        texts.put("epoch", Integer.toString(at.epoch));
        texts.put("best-epoch", Integer.toString(at.bestEpoch));
        texts.put("before", Double.toString(at.before));
        texts.put("best", Double.toString(at.best));
        Map<String, Tensor> tensors = new HashMap<>();
        gates.save(texts, tensors);
        GateScores.put("best/", at.scores, tensors);
        return new CheckpointFile.Content(texts, tensors);
    }

    private Progress restored(CheckpointFile.Content content) {
        Progress at = new Progress();
        at.epoch = Integer.parseInt(content.values().get("epoch"));
        at.bestEpoch = Integer.parseInt(content.values().get("best-epoch"));
        at.before = Double.parseDouble(content.values().get("before"));
        at.best = Double.parseDouble(content.values().get("best"));
        at.scores = gates.copy();
        at.scores.replaceAll(
                (name, old) -> content.tensors().get("best/" + name).toFloats());
        gates.restore(content.values(), content.tensors());
        log.info("gates resume: " + at.epoch + " epochs are done");
        return at;
    }
}
