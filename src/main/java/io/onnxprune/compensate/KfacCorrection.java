// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.Divergence;
import io.onnxprune.calibrate.LoweredLinear;
import io.onnxprune.calibrate.Objective;
import io.onnxprune.calibrate.Tap;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Role;
import io.onnxprune.ir.CheckpointFile;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.rewrite.PrunedState;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;

/**
 * Brings the predictions of a pruned model near to those of the whole one: steps along the minimum of the quadratic model that
 * units are removed by, with its linear term, which is not zero once they are gone. For a product X·W
 *
 * <p>ΔW = -α (A + λI)⁻¹ C (G + μI)⁻¹,
 *
 * <p>with A the mean of xᵀx, G that of dᵀd with d the gradient of a token's cross-entropy, and C the gradient by W of a
 * token's divergence from the whole model. A, G and C are measured anew for each step. One α serves all products, whose changes
 * make up for the same losses; what that leaves undone is found by the next steps, whose directions are conjugate. α is the
 * result of a search on some of the rows, so the divergence on those never rises.
 */
public final class KfacCorrection {
    /**
     * How weights are corrected.
     *
     * @param steps how often
     * @param damping λ and μ as a share of the mean diagonals of A and G
     * @param all whether all products of the residual blocks change, not only those that sum over what can be pruned
     */
    public record Settings(int steps, double damping, boolean all) {}

    /** What came of it: mean divergence per token from the whole model, in nats, on the rows of the search. */
    public record Result(Map<Value, Tensor> updates, double before, double after) {}

    /**
     * The dense model and the rows on which predictions are compared.
     *
     * @param rows token ids, of the length that the calibrator was made for
     */
    public record Reference(Calibrator dense, List<long[]> rows) {}

    /**
     * How far a run is.
     *
     * @param step corrections that are done
     * @param reached the divergence after the last one
     * @param length of its step
     * @param last what it was found from; null before the first one
     * @param directions in which it went
     */
    private record Position(
            int step,
            double before,
            double reached,
            double length,
            NaturalGradientStep last,
            Map<LoweredLinear, Tensor> directions) {}

    /** Rows that the length of a step is found on. */
    private static final int SEARCH_ROWS = 32;

    /** The first length that is tried, times the number of products: what one does, the others need not do again. */
    private static final double FIRST_LENGTH = 0.5;

    /** The divergence that rounding alone makes. */
    private static final double ROUNDING = 1e-6;

    private final PrunedState state;
    private final Calibrator model;
    private final List<long[]> rows;
    private final Settings settings;
    private final Optional<CheckpointFile> checkpoint;
    private final WeightStore store;
    private final Log log;
    private final Map<LoweredLinear, PrunedLinear> products = new LinkedHashMap<>();
    /** Contents of weights of the smaller model that have changed. */
    private Map<String, Tensor> weights = Map.of();

    private KfacCorrection(
            PrunedModel model, List<long[]> rows, Settings settings, Optional<CheckpointFile> checkpoint) {
        this.state = model.state();
        this.model = model.calibrator();
        this.rows = rows;
        this.settings = settings;
        this.checkpoint = checkpoint;
        this.store = new WeightStore(model.folder());
        this.log = model.log();
        LinearLayers layers = model.layers();
        Set<LinearLayer> wanted = settings.all ? ofBlocks(layers) : ofDimensions(layers);
        PrunedLinears linears = new PrunedLinears(state, layers);
        for (LoweredLinear linear : this.model.linears()) {
            PrunedLinear layer = linears.of(linear);
            if (layer != null && wanted.contains(layer.dense())) {
                products.putIfAbsent(linear, layer);
            }
        }
    }

    /**
     * Corrects the weights of {@code model}.
     *
     * @param reference runs the dense model, on {@code rows} of token ids
     * @param checkpoint where each correction is saved, and where a stopped run goes on; empty for none
     * @throws io.onnxprune.diag.UserException when an operator has no derivative or a run fails
     */
    public static Result run(
            PrunedModel model, Reference reference, Settings settings, Optional<CheckpointFile> checkpoint) {
        KfacCorrection correction = new KfacCorrection(model, reference.rows, settings, checkpoint);
        try (Divergence divergence = Divergence.from(reference.dense, model.calibrator(), reference.rows)) {
            return correction.run(divergence);
        }
    }

    private Set<LinearLayer> ofDimensions(LinearLayers consumers) {
        Set<LinearLayer> found = new HashSet<>();
        Map<String, String> problems = new TreeMap<>();
        for (Dimension dimension : state.structure().dimensions()) {
            if (PrunedLinears.INNER.contains(dimension.role())) {
                found.addAll(consumers.of(dimension));
                String problem = consumers.problem(dimension);
                if (problem != null && dimension.role() != Role.V_HEAD_DIM) {
                    problems.put(dimension.name(), problem);
                }
            }
        }
        problems.entrySet().stream()
                .findFirst()
                .ifPresent(first -> log.warn("not all products that sum over " + problems.size()
                        + " dimensions are corrected, such as " + first.getKey() + ": " + first.getValue()));
        return found;
    }

    private static Set<LinearLayer> ofBlocks(LinearLayers consumers) {
        Set<LinearLayer> found = new HashSet<>(consumers.all());
        found.removeIf(consumer -> !consumers.isInside(consumer));
        return found;
    }

    private Result run(Divergence divergence) {
        Objective few = divergence.first(SEARCH_ROWS);
        Position at = checkpoint.flatMap(file -> file.load(this::restored)).orElseGet(() -> start(few));
        boolean falls = true;
        while (falls && at.step < settings.steps && !products.isEmpty() && at.reached > ROUNDING) {
            Position next = corrected(at, divergence, few);
            falls = next != null;
            at = falls ? next : at;
            if (falls && at.step < settings.steps) {
                Position done = at;
                checkpoint.ifPresent(file -> file.save(saved(done)));
            }
        }
        return new Result(updates(), at.before, at.reached);
    }

    private Position start(Objective few) {
        double before = mean(few, weights);
        double length = products.isEmpty() ? 0 : FIRST_LENGTH / products.size();
        return new Position(0, before, before, length, null, Map.of());
    }

    /** One correction; null if the divergence does not fall any more. */
    private Position corrected(Position at, Divergence divergence, Objective few) {
        NaturalGradientStep descent = descent(divergence);
        Map<LoweredLinear, Tensor> directions =
                at.last == null ? descent.steps() : descent.directions(at.last, at.directions);
        LineSearch.Found found = search(few, directions, at.reached, at.length);
        if (found.length() == 0 && directions != descent.steps()) {
            directions = descent.steps();
            found = search(few, directions, at.reached, at.length);
        }
        String progress = String.format(
                Locale.ROOT, "correction %d of %d: KL divergence %.4f", at.step + 1, settings.steps, at.reached);
        if (found.length() == 0) {
            log.info(progress + " does not fall any more");
            return null;
        }
        weights = moved(directions, found.length());
        log.info(progress + String.format(Locale.ROOT, " -> %.4f (step length %.3g)", found.value(), found.length()));
        return new Position(at.step + 1, at.before, found.value(), found.length(), descent, directions);
    }

    private CheckpointFile.Content saved(Position at) {
        Map<String, Tensor> tensors = new HashMap<>();
        weights.forEach((name, tensor) -> tensors.put("weight/" + name, tensor));
        put("direction/", at.directions, tensors);
        put("slope/", at.last.slopes(), tensors);
        put("step/", at.last.steps(), tensors);
        return new CheckpointFile.Content(
                Map.of(
                        "step", Integer.toString(at.step),
                        "before", Double.toString(at.before),
                        "reached", Double.toString(at.reached),
                        "length", Double.toString(at.length)),
                tensors);
    }

    /** Several lowered layers may have one weight, so nodes name them. */
    private static void put(String prefix, Map<LoweredLinear, Tensor> of, Map<String, Tensor> tensors) {
        of.forEach((linear, tensor) -> tensors.put(prefix + linear.node(), tensor));
    }

    private Position restored(CheckpointFile.Content content) {
        Map<String, Tensor> kept = new HashMap<>();
        content.tensors().forEach((name, tensor) -> {
            if (name.startsWith("weight/")) {
                kept.put(name.substring("weight/".length()), tensor);
            }
        });
        weights = kept;
        NaturalGradientStep last = new NaturalGradientStep(
                products, take("slope/", content), rows.get(0).length, settings.damping, store, log);
        last.restore(take("step/", content));
        log.info("corrections go on: " + content.values().get("step") + " of " + settings.steps + " are done");
        return new Position(
                Integer.parseInt(content.values().get("step")),
                Double.parseDouble(content.values().get("before")),
                Double.parseDouble(content.values().get("reached")),
                Double.parseDouble(content.values().get("length")),
                last,
                take("direction/", content));
    }

    /** In the order in which a run without a stop has them: sums over layers depend on it. */
    private Map<LoweredLinear, Tensor> take(String prefix, CheckpointFile.Content content) {
        Map<LoweredLinear, Tensor> found = new HashMap<>();
        for (LoweredLinear linear : products.keySet()) {
            Tensor tensor = content.tensors().get(prefix + linear.node());
            if (tensor != null) {
                found.put(linear, tensor);
            }
        }
        return found;
    }

    private NaturalGradientStep descent(Divergence divergence) {
        NaturalGradientStep descent =
                new NaturalGradientStep(products, slopes(divergence), rows.get(0).length, settings.damping, store, log);
        current().gather(rows, descent.taps(), descent::accept);
        return descent;
    }

    private LineSearch.Found search(
            Objective rows, Map<LoweredLinear, Tensor> directions, double present, double first) {
        return LineSearch.run(
                length -> {
                    double found = mean(rows, moved(directions, length));
                    log.debug(String.format(Locale.ROOT, "step length %.4g: divergence %.5f", length, found));
                    return found;
                },
                present,
                first);
    }

    private double mean(Objective rows, Map<String, Tensor> contents) {
        return Arrays.stream(model.withWeights(contents).losses(rows)).average().orElseThrow();
    }

    /** The gradient of the sum of the rows' divergences by each weight, in the weight's shape. */
    private Map<LoweredLinear, Tensor> slopes(Divergence divergence) {
        Map<Tap, LoweredLinear> taps = new LinkedHashMap<>();
        products.keySet().forEach(linear -> taps.put(new Tap.Gradient(linear.weight()), linear));
        Map<LoweredLinear, Tensor> slopes = new HashMap<>();
        current().gather(divergence, taps.keySet(), (tap, sum) -> {
            PrunedLinear layer = products.get(taps.get(tap));
            int[] shape = Arrays.stream(layer.weight().shape())
                    .mapToInt(Math::toIntExact)
                    .toArray();
            try (Matrix gradient = Matrix.of(sum.asFloats(), shape[0], shape[1])) {
                slopes.put(taps.get(tap), store.write(gradient, layer.dense().node()));
            }
        });
        return slopes;
    }

    private Map<String, Tensor> moved(Map<LoweredLinear, Tensor> directions, double step) {
        Map<String, Tensor> moved = new HashMap<>(weights);
        directions.forEach((linear, direction) -> {
            PrunedLinear layer = products.get(linear);
            try (Matrix w = present(linear);
                    Matrix change = WeightStore.read(direction, 0)) {
                WeightStore.add(-step, change, w);
                moved.put(linear.weight(), layer.toPruned(w, store));
            }
        });
        return moved;
    }

    private Matrix present(LoweredLinear linear) {
        PrunedLinear layer = products.get(linear);
        Tensor tensor = weights.getOrDefault(linear.weight(), layer.weight());
        return WeightStore.read(tensor, layer.dense().axis());
    }

    private Calibrator current() {
        return weights.isEmpty() ? model : model.withWeights(weights);
    }

    /** New weights of the original, zero where something is gone. */
    private Map<Value, Tensor> updates() {
        Map<Value, Tensor> updates = new HashMap<>();
        products.forEach((linear, layer) -> {
            Tensor narrow = weights.get(linear.weight());
            if (narrow != null) {
                updates.put(layer.dense().weight(), layer.toOriginal(narrow, store));
            }
        });
        return updates;
    }
}
