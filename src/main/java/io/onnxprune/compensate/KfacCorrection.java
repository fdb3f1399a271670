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
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.rewrite.PrunedState;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
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
    private final WeightStore store;
    private final Log log;
    private final Map<LoweredLinear, PrunedLinear> products = new LinkedHashMap<>();
    /** Contents of weights of the smaller model that have changed. */
    private Map<String, Tensor> weights = Map.of();

    private KfacCorrection(
            PrunedState state,
            LinearLayers consumers,
            Calibrator model,
            List<long[]> rows,
            Settings settings,
            Path folder,
            Log log) {
        this.state = state;
        this.model = model;
        this.rows = rows;
        this.settings = settings;
        this.store = new WeightStore(folder);
        this.log = log;
        Set<LinearLayer> wanted = settings.all ? ofBlocks(consumers) : ofDimensions(consumers);
        PrunedLinears sites = new PrunedLinears(state, consumers);
        for (LoweredLinear linear : model.linears()) {
            PrunedLinear site = sites.of(linear);
            if (site != null && wanted.contains(site.consumer())) {
                products.putIfAbsent(linear, site);
            }
        }
    }

    /**
     * Corrects the model of {@code state}.
     *
     * @param model of that model
     * @param whole of the original, for rows of the same length
     * @param rows token ids
     * @param folder for files of new weights
     * @throws io.onnxprune.diag.UserException when an operator has no derivative or a run fails
     */
    public static Result run(
            PrunedState state,
            LinearLayers consumers,
            Calibrator model,
            Calibrator whole,
            List<long[]> rows,
            Settings settings,
            Path folder,
            Log log) {
        KfacCorrection correction = new KfacCorrection(state, consumers, model, rows, settings, folder, log);
        try (Divergence divergence = Divergence.from(whole, model, rows)) {
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
        double before = mean(few, weights);
        double reached = before;
        double length = products.isEmpty() ? 0 : FIRST_LENGTH / products.size();
        NaturalGradientStep last = null;
        Map<LoweredLinear, Tensor> directions = Map.of();
        for (int step = 1; step <= settings.steps && !products.isEmpty() && reached > ROUNDING; step++) {
            NaturalGradientStep descent = descent(divergence);
            directions = last == null ? descent.steps() : descent.directions(last, directions);
            LineSearch.Found found = search(few, directions, reached, length);
            if (found.length() == 0 && directions != descent.steps()) {
                directions = descent.steps();
                found = search(few, directions, reached, length);
            }
            String progress =
                    String.format(Locale.ROOT, "correction %d of %d: divergence %.4f", step, settings.steps, reached);
            if (found.length() == 0) {
                log.info(progress + " does not fall any more");
                break;
            }
            last = descent;
            length = found.length();
            reached = found.value();
            weights = moved(directions, length);
            log.info(progress + String.format(Locale.ROOT, " -> %.4f (step length %.3g)", reached, length));
        }
        return new Result(updates(), before, reached);
    }

    private NaturalGradientStep descent(Divergence divergence) {
        NaturalGradientStep descent =
                new NaturalGradientStep(products, slopes(divergence), rows.get(0).length, settings.damping, store, log);
        current().gather(rows, descent.taps(), descent::accept);
        return descent;
    }

    private LineSearch.Found search(Objective rows, Map<LoweredLinear, Tensor> directions, double present, double first) {
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
            PrunedLinear site = products.get(taps.get(tap));
            int[] shape = Arrays.stream(site.weight().shape())
                    .mapToInt(Math::toIntExact)
                    .toArray();
            try (Matrix gradient = Matrix.of(sum.asFloats(), shape[0], shape[1])) {
                slopes.put(taps.get(tap), store.write(gradient, site.consumer().node()));
            }
        });
        return slopes;
    }

    private Map<String, Tensor> moved(Map<LoweredLinear, Tensor> directions, double step) {
        Map<String, Tensor> moved = new HashMap<>(weights);
        directions.forEach((linear, direction) -> {
            PrunedLinear site = products.get(linear);
            try (Matrix w = present(linear);
                    Matrix change = WeightStore.read(direction, 0)) {
                WeightStore.add(-step, change, w);
                moved.put(linear.weight(), site.narrow(w, store));
            }
        });
        return moved;
    }

    private Matrix present(LoweredLinear linear) {
        PrunedLinear site = products.get(linear);
        Tensor tensor = weights.getOrDefault(linear.weight(), site.weight());
        return WeightStore.read(tensor, site.consumer().axis());
    }

    private Calibrator current() {
        return weights.isEmpty() ? model : model.withWeights(weights);
    }

    /** New weights of the original, zero where something is gone. */
    private Map<Value, Tensor> updates() {
        Map<Value, Tensor> updates = new HashMap<>();
        products.forEach((linear, site) -> {
            Tensor narrow = weights.get(linear.weight());
            if (narrow != null) {
                updates.put(site.consumer().weight(), site.wide(narrow, store));
            }
        });
        return updates;
    }
}
