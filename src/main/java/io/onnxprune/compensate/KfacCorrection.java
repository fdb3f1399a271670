// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.Calibrator;
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
 * Corrects the weights of a pruned model so that its predictions come closer to those of the dense model. Each
 * correction is a K-FAC natural-gradient step (arXiv 1503.05671) on the KL divergence. For a linear layer X·W it is
 *
 * <p>ΔW = -α (A + λI)⁻¹ C (G + μI)⁻¹.
 *
 * <p>A is the mean of xᵀx. G is the mean of dᵀd, where d is the gradient of a token's cross-entropy by the layer's
 * output. C is the gradient of a token's KL divergence by W. A, G and C are measured again for each step. One step
 * length α serves all layers, since their changes reduce the same divergence. The directions of later steps are
 * conjugate to the earlier ones. α comes from a line search on some of the rows, so the KL divergence on these rows
 * never rises. Rows that gradients are not taken from keep corrections from fitting their rows alone.
 */
public final class KfacCorrection {
    /**
     * How weights are corrected.
     *
     * @param steps number of corrections
     * @param damping λ and μ as a share of the mean diagonals of A and G
     * @param all whether all linear layers of the residual blocks change, not only the consumers of prunable
     *     dimensions
     * @param objective the loss that corrections reduce
     */
    public record Settings(int steps, double damping, boolean all, CorrectionObjective objective) {}

    /**
     * The result of a run.
     *
     * @param updates new weights of the dense model, zero for pruned units
     * @param before mean loss per token before the first step, in nats, on the rows
     *     of the line search
     * @param after the mean loss after the last step
     */
    public record Result(Map<Value, Tensor> updates, double before, double after) {}

    /**
     * The dense model and the rows on which predictions are compared.
     *
     * @param dense runs the dense model
     * @param rows token ids, all of the length that the calibrator was made for
     * @param search rows for the line search alone; empty to search on some of {@code rows}
     */
    public record Reference(Calibrator dense, List<long[]> rows, List<long[]> search) {}

    /**
     * The progress of a run.
     *
     * @param step number of finished corrections
     * @param before the loss before the first correction
     * @param reached the loss after the last correction
     * @param length the step length of the last correction
     * @param last the natural-gradient step of the last correction; null before the first one
     * @param directions the directions of the last correction
     */
    private record Position(
            int step,
            double before,
            double reached,
            double length,
            NaturalGradientStep last,
            Map<LoweredLinear, Tensor> directions) {}

    /**
     * The first step length, multiplied by the number of layers. All layers reduce the same error, so each takes a
     * share.
     */
    private static final double FIRST_LENGTH = 0.5;

    /** The loss that rounding errors alone cause. */
    private static final double ROUNDING = 1e-6;

    private final PrunedState state;
    private final Calibrator model;
    private final List<long[]> rows;
    private final Settings settings;
    private final Optional<CheckpointFile> checkpoint;
    private final WeightStore store;
    private final Log log;
    private final Map<LoweredLinear, PrunedLinear> layers = new LinkedHashMap<>();
    /** Changed weights of the pruned model, by initializer name. */
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
        LinearLayers dense = model.layers();
        Set<LinearLayer> wanted = settings.all ? ofBlocks(dense) : consumersOfDimensions(dense);
        PrunedLinears linears = new PrunedLinears(state, dense);
        for (LoweredLinear linear : this.model.linears()) {
            PrunedLinear layer = linears.of(linear);
            if (layer != null && wanted.contains(layer.dense())) {
                layers.putIfAbsent(linear, layer);
            }
        }
    }

    /**
     * Corrects the weights of {@code model}.
     *
     * @param reference the dense model and the rows of token ids
     * @param checkpoint saves each correction and lets a stopped run resume; empty for none
     * @throws io.onnxprune.diag.UserException when an operator has no derivative or a run fails
     */
    public static Result run(
            PrunedModel model, Reference reference, Settings settings, Optional<CheckpointFile> checkpoint) {
        KfacCorrection correction = new KfacCorrection(model, reference.rows, settings, checkpoint);
        try (CorrectionObjective.Losses losses =
                settings.objective.open(model.calibrator(), reference.dense, reference.rows, reference.search)) {
            return correction.run(losses);
        }
    }

    private Set<LinearLayer> consumersOfDimensions(LinearLayers layers) {
        Set<LinearLayer> found = new HashSet<>();
        Map<String, String> problems = new TreeMap<>();
        for (Dimension dimension : state.structure().dimensions()) {
            if (PrunedLinears.INNER.contains(dimension.role())) {
                found.addAll(layers.of(dimension));
                String problem = layers.problem(dimension);
                if (problem != null && dimension.role() != Role.V_HEAD_DIM) {
                    problems.put(dimension.name(), problem);
                }
            }
        }
        problems.entrySet().stream()
                .findFirst()
                .ifPresent(first -> log.warn("not all consumers of " + problems.size()
                        + " dimensions are corrected, such as " + first.getKey() + ": " + first.getValue()));
        return found;
    }

    private static Set<LinearLayer> ofBlocks(LinearLayers layers) {
        Set<LinearLayer> found = new HashSet<>(layers.all());
        found.removeIf(layer -> !layers.isInside(layer));
        return found;
    }

    private Result run(CorrectionObjective.Losses losses) {
        Objective searchRows = losses.search();
        Position at = checkpoint.flatMap(file -> file.load(this::restore)).orElseGet(() -> start(searchRows));
        boolean improved = true;
        while (improved && at.step < settings.steps && !layers.isEmpty() && at.reached > ROUNDING) {
            Position next = correct(at, losses);
            improved = next != null;
            at = improved ? next : at;
            if (improved && at.step < settings.steps) {
                Position done = at;
                checkpoint.ifPresent(file -> file.save(content(done)));
            }
        }
        return new Result(updates(), at.before, at.reached);
    }

    private Position start(Objective searchRows) {
        double before = mean(searchRows, weights);
        double length = layers.isEmpty() ? 0 : FIRST_LENGTH / layers.size();
        return new Position(0, before, before, length, null, Map.of());
    }

    /** Makes one correction; null if the loss does not decrease. */
    private Position correct(Position at, CorrectionObjective.Losses losses) {
        Objective searchRows = losses.search();
        NaturalGradientStep step = gradientStep(losses.all());
        Map<LoweredLinear, Tensor> directions =
                at.last == null ? step.steps() : step.directions(at.last, at.directions);
        LineSearch.Found found = search(searchRows, directions, at.reached, at.length);
        if (found.length() == 0 && directions != step.steps()) {
            directions = step.steps();
            found = search(searchRows, directions, at.reached, at.length);
        }
        String progress = String.format(
                Locale.ROOT,
                "correction %d of %d: %s %.4f",
                at.step + 1,
                settings.steps,
                settings.objective.title(),
                at.reached);
        if (found.length() == 0) {
            log.info(progress + " does not decrease any more");
            return null;
        }
        weights = moved(directions, found.length());
        log.info(progress + String.format(Locale.ROOT, " -> %.4f (step length %.3g)", found.value(), found.length()));
        return new Position(at.step + 1, at.before, found.value(), found.length(), step, directions);
    }

    private CheckpointFile.Content content(Position at) {
        Map<String, Tensor> tensors = new HashMap<>();
        weights.forEach((name, tensor) -> tensors.put("weight/" + name, tensor));
        put("direction/", at.directions, tensors);
        put("slope/", at.last.gradients(), tensors);
        put("step/", at.last.steps(), tensors);
        return new CheckpointFile.Content(
                Map.of(
                        "step", Integer.toString(at.step),
                        "before", Double.toString(at.before),
                        "reached", Double.toString(at.reached),
                        "length", Double.toString(at.length)),
                tensors);
    }

    /** Stores tensors by node, because several lowered layers may share one weight. */
    private static void put(String prefix, Map<LoweredLinear, Tensor> of, Map<String, Tensor> tensors) {
        of.forEach((linear, tensor) -> tensors.put(prefix + linear.node(), tensor));
    }

    private Position restore(CheckpointFile.Content content) {
        Map<String, Tensor> kept = new HashMap<>();
        content.tensors().forEach((name, tensor) -> {
            if (name.startsWith("weight/")) {
                kept.put(name.substring("weight/".length()), tensor);
            }
        });
        weights = kept;
        NaturalGradientStep last = new NaturalGradientStep(
                layers, take("slope/", content), rows.get(0).length, settings.damping, store, log);
        last.restore(take("step/", content));
        log.info("corrections resume: " + content.values().get("step") + " of " + settings.steps + " are done");
        return new Position(
                Integer.parseInt(content.values().get("step")),
                Double.parseDouble(content.values().get("before")),
                Double.parseDouble(content.values().get("reached")),
                Double.parseDouble(content.values().get("length")),
                last,
                take("direction/", content));
    }

    /** Keeps the order of an uninterrupted run, because sums over layers depend on it. */
    private Map<LoweredLinear, Tensor> take(String prefix, CheckpointFile.Content content) {
        Map<LoweredLinear, Tensor> found = new HashMap<>();
        for (LoweredLinear linear : layers.keySet()) {
            Tensor tensor = content.tensors().get(prefix + linear.node());
            if (tensor != null) {
                found.put(linear, tensor);
            }
        }
        return found;
    }

    private NaturalGradientStep gradientStep(Objective objective) {
        NaturalGradientStep step =
                new NaturalGradientStep(layers, gradients(objective), rows.get(0).length, settings.damping, store, log);
        current().gather(rows, step.taps(), step::accept);
        return step;
    }

    private LineSearch.Found search(
            Objective rows, Map<LoweredLinear, Tensor> directions, double current, double first) {
        return LineSearch.run(
                length -> {
                    double found = mean(rows, moved(directions, length));
                    log.debug(String.format(Locale.ROOT, "step length %.4g: loss %.5f", length, found));
                    return found;
                },
                current,
                first);
    }

    private double mean(Objective rows, Map<String, Tensor> contents) {
        return Arrays.stream(model.withWeights(contents).losses(rows)).average().orElseThrow();
    }

    /** The gradient of the summed loss of the rows by each weight, in the shape of the weight. */
    private Map<LoweredLinear, Tensor> gradients(Objective objective) {
        Map<Tap, LoweredLinear> taps = new LinkedHashMap<>();
        layers.keySet().forEach(linear -> taps.put(new Tap.Gradient(linear.weight()), linear));
        Map<LoweredLinear, Tensor> gradients = new HashMap<>();
        current().gather(objective, taps.keySet(), (tap, sum) -> {
            PrunedLinear layer = layers.get(taps.get(tap));
            int[] shape = Arrays.stream(layer.weight().shape())
                    .mapToInt(Math::toIntExact)
                    .toArray();
            try (Matrix gradient = Matrix.of(sum.asFloats(), shape[0], shape[1])) {
                gradients.put(taps.get(tap), store.write(gradient, layer.dense().node()));
            }
        });
        return gradients;
    }

    private Map<String, Tensor> moved(Map<LoweredLinear, Tensor> directions, double step) {
        Map<String, Tensor> moved = new HashMap<>(weights);
        directions.forEach((linear, direction) -> {
            PrunedLinear layer = layers.get(linear);
            try (Matrix w = present(linear);
                    Matrix change = WeightStore.read(direction, 0)) {
                WeightStore.add(-step, change, w);
                moved.put(linear.weight(), layer.toPruned(w, store));
            }
        });
        return moved;
    }

    private Matrix present(LoweredLinear linear) {
        PrunedLinear layer = layers.get(linear);
        Tensor tensor = weights.getOrDefault(linear.weight(), layer.weight());
        return WeightStore.read(tensor, layer.dense().axis());
    }

    private Calibrator current() {
        return weights.isEmpty() ? model : model.withWeights(weights);
    }

    /** New weights of the dense model, zero for pruned units. */
    private Map<Value, Tensor> updates() {
        Map<Value, Tensor> updates = new HashMap<>();
        layers.forEach((linear, layer) -> {
            Tensor pruned = weights.get(linear.weight());
            if (pruned != null) {
                updates.put(layer.dense().weight(), layer.toDense(pruned, store));
            }
        });
        return updates;
    }
}
