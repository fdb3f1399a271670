// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.LoweredLinear;
import io.onnxprune.calibrate.SequentialRun;
import io.onnxprune.calibrate.SequentialRun.InputStatistics;
import io.onnxprune.calibrate.Statistics;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Dimension;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.obs.Damping;
import io.onnxprune.obs.LayerProblem;
import io.onnxprune.obs.LeastSquares;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.plan.Plan;
import io.onnxprune.rewrite.PrunedState;
import java.nio.FloatBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.stream.IntStream;

/**
 * Prunes a model block by block (SlimGPT, arXiv 2412.18110). When the inputs X of a product are known, as the blocks before
 * have left them, it is decided which units of the dimensions that it sums over go; their rows of W become zero and the
 * others what comes nearest to the whole product: W_K = A_KK⁻¹ A_K: W with A = XᵀX; a bias is one more row, whose input is always 1
 * and always stays. A dimension that several products sum
 * over is decided at the first ones that are reached.
 */
public final class LayerwisePruning implements SequentialRun.Editor {
    /**
     * How weights compensate for pruned units.
     *
     * @param bias whether the layer's bias compensates, by the mean of what is pruned (FLAP, arXiv 2312.11983), instead of the
     *     kept rows of W
     * @param damping share of the mean diagonal of A that is added to it
     * @param dense whether the kept rows come near to what the residual stream of the dense model needs, where the layer only adds
     *     to that; otherwise to the layer as it is
     */
    public record Update(boolean bias, double damping, boolean dense) {}

    /**
     * What a run does to each layer.
     *
     * @param selection chooses units, of which the plan then only gives the number; empty to prune the units of the plan
     * @param update how the other weights compensate; empty to leave them
     */
    public record Method(Optional<Selection> selection, Optional<Update> update) {}

    /**
     * A product whose inputs are known.
     *
     * @param a second moment of its inputs; with an input that is always 1 where its bias may change
     * @param w its weights, with the bias as the last row then
     * @param bias as it is; null where it does not change
     */
    @SuppressWarnings("ArrayRecordComponent") // never compared
    private record Part(PrunedLinear layer, Matrix a, Matrix w, double[] bias) implements AutoCloseable {
        @Override
        public void close() {
            w.close();
            if (bias != null) {
                a.close();
            }
        }
    }

    private final PrunedState state;
    private final Plan target;
    private final Selection selection;
    private final Update update;
    private final WeightStore store;
    private final BiasStore biases;
    private final Log log;
    private final PrunedLinears linears;
    private final Map<LinearLayer, List<Dimension>> shrinking = new LinkedHashMap<>();
    private final Map<Dimension, int[]> kept = new LinkedHashMap<>();
    private final Map<Value, Tensor> updates = new HashMap<>();
    private final Map<String, String> obstacles = new LinkedHashMap<>();

    /**
     * An editor for a run over the model of {@code state}.
     *
     * @param target what is to be left of the dense model; with a selection, how many units of each dimension
     * @param folder for files of new weights
     */
    public LayerwisePruning(PrunedState state, LinearLayers layers, Plan target, Method method, Path folder, Log log) {
        this.state = state;
        this.target = target;
        this.selection = method.selection.orElse(null);
        this.update = method.update.orElse(null);
        this.store = new WeightStore(folder);
        this.biases = new BiasStore(state);
        this.log = log;
        this.linears = new PrunedLinears(state, layers);
        for (Dimension dimension : state.structure().dimensions()) {
            int[] left = target.keep().get(dimension.name());
            if (left != null && left.length < present(dimension).length) {
                layers.of(dimension)
                        .forEach(consumer -> shrinking
                                .computeIfAbsent(consumer, key -> new ArrayList<>())
                                .add(dimension));
                if (selection == null) {
                    kept.put(dimension, left);
                }
            }
        }
    }

    /** The units of a dimension that the model to be pruned has. */
    private int[] present(Dimension dimension) {
        int[] left = state.plan().keep().get(dimension.name());
        return left == null ? IntStream.range(0, dimension.size()).toArray() : left;
    }

    @Override
    public boolean wants(LoweredLinear linear) {
        PrunedLinear layer = linears.of(linear);
        return layer != null && shrinking.containsKey(layer.dense());
    }

    @Override
    public Map<String, Tensor> edit(List<LoweredLinear> sharing, InputStatistics statistics) {
        int inputs = sharing.get(0).input().width();
        Map<String, Tensor> edited = new LinkedHashMap<>();
        List<Part> here = new ArrayList<>();
        try (Matrix a = Matrix.of(statistics.secondMoment().asFloats(), inputs, inputs)) {
            for (LoweredLinear linear : sharing) {
                here.add(part(linear, a, statistics));
            }
            decide(here, statistics.positions());
            for (int i = 0; i < here.size(); i++) {
                edited.putAll(changed(sharing.get(i), here.get(i), statistics));
            }
        } finally {
            here.forEach(Part::close);
        }
        return edited;
    }

    private Part part(LoweredLinear linear, Matrix a, InputStatistics statistics) {
        PrunedLinear layer = linears.of(linear);
        Matrix w = start(linear, layer, a, statistics);
        double[] bias = update == null || update.bias ? null : biases.of(layer);
        if (bias == null) {
            return new Part(layer, a, w, null);
        }
        try (w) {
            double[] total = Statistics.doubles(statistics.total());
            return new Part(layer, a.bordered(total, (double) statistics.positions()), w.withRow(bias), bias);
        }
    }

    /** New contents of a product's weight, and of its bias where that changes. */
    private Map<String, Tensor> changed(LoweredLinear linear, Part part, InputStatistics statistics) {
        PrunedLinear layer = part.layer;
        Map<String, Tensor> edited = new LinkedHashMap<>();
        try (Matrix all = without(part, statistics.positions())) {
            Matrix changed = all.block(0, 0, layer.rows().length, all.columns());
            Tensor narrow = layer.toPruned(changed, store);
            edited.put(linear.weight(), narrow);
            updates.put(layer.dense().weight(), layer.isWhole() ? narrow : layer.toOriginal(changed, store));
            if (part.bias != null) {
                double[] shift = new double[part.bias.length];
                all.getRow(all.rows() - 1, shift);
                for (int i = 0; i < shift.length; i++) {
                    shift[i] -= part.bias[i];
                }
                edited.putAll(biases.add(layer, shift));
            } else if (update != null && update.bias && staying(part).length < part.w.rows()) {
                edited.putAll(biases.add(layer, meanOfLost(part, statistics)));
            }
        }
        return edited;
    }

    /** What the product is to come near to. */
    private Matrix start(LoweredLinear linear, PrunedLinear layer, Matrix a, InputStatistics statistics) {
        Matrix w = layer.read();
        if (update == null || !update.dense) {
            return w;
        }
        String obstacle = statistics.obstacles().get(linear);
        if (obstacle != null) {
            obstacles.put(layer.dense().node(), obstacle);
            return w;
        }
        int[] all = IntStream.range(0, w.rows()).toArray();
        Damping damping = damping(update.damping, layer.dense().node(), statistics.positions());
        try (Matrix error = Matrix.of(statistics.error().asFloats(), w.rows(), w.columns());
                LeastSquares.Correction correction = LeastSquares.correction(a, error, all, null, damping)) {
            WeightStore.add(correction.weights(), w);
        }
        return w;
    }

    /** Σ mean(x_j)·W_j over the channels that go. */
    private double[] meanOfLost(Part part, InputStatistics statistics) {
        Matrix w = part.w;
        BitSet stays = new BitSet();
        IntStream.of(staying(part)).forEach(stays::set);
        FloatBuffer total = statistics.total().asFloats();
        double[] sum = new double[w.columns()];
        double[] row = new double[w.columns()];
        for (int channel = stays.nextClearBit(0); channel < w.rows(); channel = stays.nextClearBit(channel + 1)) {
            double mean = (double) total.get(total.position() + channel) / Math.max(1, statistics.positions());
            w.getRow(channel, row);
            for (int i = 0; i < row.length; i++) {
                sum[i] += mean * row[i];
            }
        }
        return sum;
    }

    private void decide(List<Part> here, long positions) {
        here.stream()
                .flatMap(part -> shrinking.get(part.layer.dense()).stream())
                .distinct()
                .filter(dimension -> !kept.containsKey(dimension))
                .sorted(Comparator.comparing(Dimension::role))
                .toList()
                .forEach(dimension -> decide(dimension, here, positions));
    }

    private void decide(Dimension dimension, List<Part> here, long positions) {
        int[] units = present(dimension);
        List<LayerProblem> quadratics = new ArrayList<>();
        List<Matrix> parts = new ArrayList<>();
        Set<LinearLayer> reached = new HashSet<>();
        int gone = units.length - target.keep().get(dimension.name()).length;
        try {
            for (Part part : here) {
                if (shrinking.get(part.layer.dense()).contains(dimension)) {
                    quadratics.add(quadratic(dimension, units, part, positions, parts));
                    reached.add(part.layer.dense());
                }
            }
            Set<Integer> lost = new HashSet<>();
            IntStream.of(selection.choose(dimension, quadratics, gone, new Selection.Measured(positions, log)))
                    .forEach(index -> lost.add(units[index]));
            kept.put(
                    dimension,
                    IntStream.of(units).filter(unit -> !lost.contains(unit)).toArray());
        } finally {
            parts.forEach(Matrix::close);
        }
        long others = shrinking.entrySet().stream()
                .filter(entry -> entry.getValue().contains(dimension) && !reached.contains(entry.getKey()))
                .count();
        if (others > 0) {
            log.warn(dimension.name() + " is summed over in " + (others + reached.size())
                    + " places; the first alone decides what goes: node "
                    + here.get(0).layer.dense().node());
        }
    }

    /** One product's share in a dimension, without what is gone already. */
    private LayerProblem quadratic(Dimension dimension, int[] units, Part part, long positions, List<Matrix> parts) {
        int[] rows = staying(part);
        List<int[]> all = local(part.layer.units(dimension), rows);
        List<int[]> present = IntStream.of(units).mapToObj(all::get).toList();
        if (rows.length == part.w.rows()) {
            return new LayerProblem(part.a, part.w, null, present);
        }
        try (Matrix left = without(part, positions)) {
            parts.add(part.a.select(rows, rows));
            parts.add(left.selectRows(rows));
        }
        return new LayerProblem(parts.get(parts.size() - 2), parts.get(parts.size() - 1), null, present);
    }

    /** The rows of W that belong to no unit known to go. */
    private int[] staying(Part part) {
        PrunedLinear layer = part.layer;
        BitSet rows = new BitSet();
        rows.set(0, part.w.rows());
        for (Dimension dimension : shrinking.get(layer.dense())) {
            int[] left = kept.get(dimension);
            if (left != null) {
                List<int[]> units = layer.units(dimension);
                for (int unit = 0; unit < units.size(); unit++) {
                    if (Arrays.binarySearch(left, unit) < 0) {
                        IntStream.of(units.get(unit)).forEach(rows::clear);
                    }
                }
            }
        }
        return rows.stream().toArray();
    }

    /** Units by the positions that their rows have among {@code rows}. */
    private static List<int[]> local(List<int[]> units, int[] rows) {
        return units.stream()
                .map(unit -> IntStream.of(unit)
                        .map(row -> Arrays.binarySearch(rows, row))
                        .filter(place -> place >= 0)
                        .toArray())
                .toList();
    }

    /** W with zeros where units are gone so far, and the other rows as they are to be then. */
    private Matrix without(Part part, long positions) {
        Matrix w = part.w;
        int[] rows = staying(part);
        if (rows.length == w.rows()) {
            return w.copy();
        }
        if (update != null && !update.bias) {
            return LeastSquares.keep(
                    part.a, w, rows, damping(update.damping, part.layer.dense().node(), positions));
        }
        Matrix zeroed = Matrix.zeros(w.rows(), w.columns());
        double[] row = new double[w.columns()];
        for (int index : rows) {
            w.getRow(index, row);
            zeroed.setRow(index, row);
        }
        return zeroed;
    }

    private Damping damping(double share, String label, long positions) {
        return new Damping(share, positions, label, log);
    }

    /**
     * What is left of the original.
     *
     * @throws UserException if a dimension was to be decided whose products were not reached
     */
    public Plan plan() {
        Map<String, int[]> keep = new LinkedHashMap<>(target.keep());
        shrinking.values().stream().flatMap(List::stream).forEach(dimension -> {
            if (!kept.containsKey(dimension)) {
                throw new UserException(
                        "nothing of " + dimension.name() + " can be chosen: the model does not compute its"
                                + " product, node " + reader(dimension) + ", on the way from the tokens to the logits");
            }
        });
        kept.forEach((dimension, units) -> keep.put(dimension.name(), units));
        return new Plan(target.model(), keep, target.layers(), target.blocks());
    }

    private String reader(Dimension dimension) {
        return shrinking.entrySet().stream()
                .filter(entry -> entry.getValue().contains(dimension))
                .map(entry -> entry.getKey().node())
                .findFirst()
                .orElseThrow();
    }

    /** New weights of the original, zero where something is gone. */
    public Map<Value, Tensor> updates() {
        obstacles.entrySet().stream()
                .findFirst()
                .ifPresent(
                        first -> log.warn(obstacles.size() + " products make up for what they lose themselves, not for"
                                + " what the whole model has more: " + first.getKey() + ", " + first.getValue()));
        Map<Value, Tensor> all = new HashMap<>(updates);
        all.putAll(biases.updates());
        return all;
    }
}
