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
 * Prunes a model layer by layer (SlimGPT, arXiv 2412.18110). It visits a linear layer X·W when its inputs X are known,
 * computed by the already pruned blocks before it. It then chooses the pruned units of the dimensions that the layer
 * consumes. The rows of W for pruned units become zero. The kept rows K become W_K = A_KK⁻¹ A_K: W with A = XᵀX, so
 * that the layer's output changes least. A bias counts as one more row, whose input is always 1 and which is always
 * kept.
 *
 * <p>When a dimension has several consumers, the first that are reached choose its units.
 */
public final class LayerwisePruning implements SequentialRun.Editor {
    /**
     * How weights compensate for pruned units.
     *
     * @param bias whether the bias of a layer compensates, by the mean of the pruned contribution (FLAP, arXiv
     *     2312.11983), instead of the kept rows of W
     * @param damping share of the mean diagonal of A that is added to it
     * @param dense whether the kept rows approximate the residual stream of the dense model. This applies to
     *     layers whose output is only added to the stream. Other layers approximate their own output before pruning.
     */
    public record Update(boolean bias, double damping, boolean dense) {}

    /**
     * The treatment of each layer.
     *
     * @param selection chooses units, and the plan gives only their number; empty to prune the units of the plan
     * @param update how the kept weights compensate; empty to leave them unchanged
     */
    public record Method(Optional<Selection> selection, Optional<Update> update) {}

    /**
     * A linear layer whose inputs are known.
     *
     * @param a second moment of its inputs, {@code [n, n]}; {@code [n + 1, n + 1]} with an input that is always 1
     *     where the bias may change
     * @param w its weights, {@code [n, m]}; {@code [n + 1, m]} with the bias as the last row where it may change
     * @param bias the current bias, {@code [m]}; null where it does not change
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
    private final Map<LinearLayer, List<Dimension>> prunedDimensions = new LinkedHashMap<>();
    private final Map<Dimension, int[]> kept = new LinkedHashMap<>();
    private final Map<Value, Tensor> updates = new HashMap<>();
    private final Map<String, String> obstacles = new LinkedHashMap<>();

    /**
     * Creates an editor for a sequential run over the model of {@code state}.
     *
     * @param layers the linear layers of the dense model
     * @param target the kept units of the dense model; with a selection, only their number in each dimension
     *     counts
     * @param folder folder for files of new weights
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
            int[] units = target.keep().get(dimension.name());
            if (units != null && units.length < state.plan().kept(dimension).length) {
                layers.of(dimension)
                        .forEach(consumer -> prunedDimensions
                                .computeIfAbsent(consumer, key -> new ArrayList<>())
                                .add(dimension));
                if (selection == null) {
                    kept.put(dimension, units);
                }
            }
        }
    }

    @Override
    public boolean wants(LoweredLinear linear) {
        PrunedLinear layer = linears.of(linear);
        return layer != null && prunedDimensions.containsKey(layer.dense());
    }

    @Override
    public Map<String, Tensor> edit(List<LoweredLinear> layers, InputStatistics statistics) {
        int inputs = layers.get(0).input().width();
        Map<String, Tensor> edited = new LinkedHashMap<>();
        List<Part> here = new ArrayList<>();
        try (Matrix a = Matrix.of(statistics.secondMoment().asFloats(), inputs, inputs)) {
            for (LoweredLinear linear : layers) {
                here.add(part(linear, a, statistics));
            }
            choose(here, statistics.positions());
            for (int i = 0; i < here.size(); i++) {
                edited.putAll(update(layers.get(i), here.get(i), statistics));
            }
        } finally {
            here.forEach(Part::close);
        }
        return edited;
    }

    private Part part(LoweredLinear linear, Matrix a, InputStatistics statistics) {
        PrunedLinear layer = linears.of(linear);
        Matrix w = targetWeights(linear, layer, a, statistics);
        double[] bias = update == null || update.bias ? null : biases.of(layer);
        if (bias == null) {
            return new Part(layer, a, w, null);
        }
        try (w) {
            double[] total = Statistics.doubles(statistics.total());
            return new Part(layer, a.bordered(total, (double) statistics.positions()), w.withRow(bias), bias);
        }
    }

    /** The new contents of a layer's weight, and of its bias where the bias changes. */
    private Map<String, Tensor> update(LoweredLinear linear, Part part, InputStatistics statistics) {
        PrunedLinear layer = part.layer;
        Map<String, Tensor> edited = new LinkedHashMap<>();
        try (Matrix all = pruneRows(part, statistics.positions())) {
            Matrix changed = all.block(0, 0, layer.rows().length, all.columns());
            Tensor pruned = layer.toPruned(changed, store);
            edited.put(linear.weight(), pruned);
            updates.put(layer.dense().weight(), layer.isDense() ? pruned : layer.toDense(changed, store));
            if (part.bias != null) {
                double[] shift = new double[part.bias.length];
                all.getRow(all.rows() - 1, shift);
                for (int i = 0; i < shift.length; i++) {
                    shift[i] -= part.bias[i];
                }
                edited.putAll(biases.add(layer, shift));
            } else if (update != null && update.bias && keptRows(part).length < part.w.rows()) {
                edited.putAll(biases.add(layer, meanOfPruned(part, statistics)));
            }
        }
        return edited;
    }

    /** The weights whose output the pruned layer approximates. */
    private Matrix targetWeights(LoweredLinear linear, PrunedLinear layer, Matrix a, InputStatistics statistics) {
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

    /** Σ mean(x_j)·W_j over the pruned channels j. */
    private double[] meanOfPruned(Part part, InputStatistics statistics) {
        Matrix w = part.w;
        BitSet keptChannels = new BitSet();
        IntStream.of(keptRows(part)).forEach(keptChannels::set);
        FloatBuffer total = statistics.total().asFloats();
        double[] sum = new double[w.columns()];
        double[] row = new double[w.columns()];
        for (int channel = keptChannels.nextClearBit(0);
                channel < w.rows();
                channel = keptChannels.nextClearBit(channel + 1)) {
            double mean = (double) total.get(total.position() + channel) / Math.max(1, statistics.positions());
            w.getRow(channel, row);
            for (int i = 0; i < row.length; i++) {
                sum[i] += mean * row[i];
            }
        }
        return sum;
    }

    private void choose(List<Part> here, long positions) {
        here.stream()
                .flatMap(part -> prunedDimensions.get(part.layer.dense()).stream())
                .distinct()
                .filter(dimension -> !kept.containsKey(dimension))
                .sorted(Comparator.comparing(Dimension::role))
                .toList()
                .forEach(dimension -> choose(dimension, here, positions));
    }

    private void choose(Dimension dimension, List<Part> here, long positions) {
        int[] units = state.plan().kept(dimension);
        List<LayerProblem> problems = new ArrayList<>();
        List<Matrix> parts = new ArrayList<>();
        Set<LinearLayer> reached = new HashSet<>();
        int count = units.length - target.keep().get(dimension.name()).length;
        try {
            for (Part part : here) {
                if (prunedDimensions.get(part.layer.dense()).contains(dimension)) {
                    problems.add(problem(dimension, units, part, positions, parts));
                    reached.add(part.layer.dense());
                }
            }
            Set<Integer> pruned = new HashSet<>();
            IntStream.of(selection.choose(dimension, problems, count, new Selection.Measured(positions, log)))
                    .forEach(index -> pruned.add(units[index]));
            kept.put(
                    dimension,
                    IntStream.of(units).filter(unit -> !pruned.contains(unit)).toArray());
        } finally {
            parts.forEach(Matrix::close);
        }
        long others = prunedDimensions.entrySet().stream()
                .filter(entry -> entry.getValue().contains(dimension) && !reached.contains(entry.getKey()))
                .count();
        if (others > 0) {
            log.warn(dimension.name() + " has " + (others + reached.size())
                    + " consumers; only the first of them choose the pruned units: node "
                    + here.get(0).layer.dense().node());
        }
    }

    /** The pruning problem of one consumer of a dimension, over the rows that are not pruned yet. */
    private LayerProblem problem(Dimension dimension, int[] units, Part part, long positions, List<Matrix> parts) {
        int[] rows = keptRows(part);
        List<int[]> all = local(part.layer.units(dimension), rows);
        List<int[]> present = IntStream.of(units).mapToObj(all::get).toList();
        if (rows.length == part.w.rows()) {
            return new LayerProblem(part.a, part.w, null, present);
        }
        try (Matrix pruned = pruneRows(part, positions)) {
            parts.add(part.a.select(rows, rows));
            parts.add(pruned.selectRows(rows));
        }
        return new LayerProblem(parts.get(parts.size() - 2), parts.get(parts.size() - 1), null, present);
    }

    /** The rows of W that belong to no unit that is known to be pruned. */
    private int[] keptRows(Part part) {
        PrunedLinear layer = part.layer;
        BitSet rows = new BitSet();
        rows.set(0, part.w.rows());
        for (Dimension dimension : prunedDimensions.get(layer.dense())) {
            int[] units = kept.get(dimension);
            if (units != null) {
                List<int[]> channels = layer.units(dimension);
                for (int unit = 0; unit < channels.size(); unit++) {
                    if (Arrays.binarySearch(units, unit) < 0) {
                        IntStream.of(channels.get(unit)).forEach(rows::clear);
                    }
                }
            }
        }
        return rows.stream().toArray();
    }

    /** The channels of units as positions in {@code rows}. */
    private static List<int[]> local(List<int[]> units, int[] rows) {
        return units.stream()
                .map(unit -> IntStream.of(unit)
                        .map(row -> Arrays.binarySearch(rows, row))
                        .filter(position -> position >= 0)
                        .toArray())
                .toList();
    }

    /** W with zeros for the units pruned so far. The other rows compensate as the update says. */
    private Matrix pruneRows(Part part, long positions) {
        Matrix w = part.w;
        int[] rows = keptRows(part);
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
     * The kept units of the dense model after the run.
     *
     * @throws UserException if units of a dimension were to be chosen and no consumer of it was reached
     */
    public Plan plan() {
        Map<String, int[]> keep = new LinkedHashMap<>(target.keep());
        prunedDimensions.values().stream().flatMap(List::stream).forEach(dimension -> {
            if (!kept.containsKey(dimension)) {
                throw new UserException("no units of " + dimension.name() + " can be chosen: the model does not run its"
                        + " consumer, node " + consumer(dimension) + ", between the tokens and the logits");
            }
        });
        kept.forEach((dimension, units) -> keep.put(dimension.name(), units));
        return new Plan(target.model(), keep, target.layers(), target.blocks());
    }

    private String consumer(Dimension dimension) {
        return prunedDimensions.entrySet().stream()
                .filter(entry -> entry.getValue().contains(dimension))
                .map(entry -> entry.getKey().node())
                .findFirst()
                .orElseThrow();
    }

    /** New weights of the dense model, zero for pruned units. */
    public Map<Value, Tensor> updates() {
        obstacles.entrySet().stream()
                .findFirst()
                .ifPresent(first ->
                        log.warn(obstacles.size() + " linear layers compensate only for their own pruned units, not for"
                                + " the error of the residual stream: " + first.getKey() + ", " + first.getValue()));
        Map<Value, Tensor> all = new HashMap<>(updates);
        all.putAll(biases.updates());
        return all;
    }
}
