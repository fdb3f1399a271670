// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.LoweredLinear;
import io.onnxprune.calibrate.Statistics;
import io.onnxprune.calibrate.Tap;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dimension;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.obs.Damping;
import io.onnxprune.obs.LeastSquares;
import io.onnxprune.plan.Plan;
import io.onnxprune.rewrite.PrunedState;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Supplier;
import java.util.stream.IntStream;

/**
 * The correlated weight updates of the LLM Surgeon (arXiv 2312.17244, section 4.3), for units that are pruned from
 * several linear layers at once. In a consumer of a unit, the kept inputs compensate in the metric of A = XᵀX. In a
 * producer, the kept outputs compensate in the metric of G = DᵀD. A and G are measured on the model before the step. A
 * bias counts as one more input, which is always 1 and always kept.
 */
public final class KroneckerUpdate {
    /** Which linear layers change. */
    public enum Sides {
        /** The consumers of pruned units. */
        INPUTS,
        /** The producers of pruned units. */
        OUTPUTS,
        /** Consumers and producers. */
        BOTH;

        private boolean inputs() {
            return this != OUTPUTS;
        }

        private boolean outputs() {
            return this != INPUTS;
        }
    }

    /**
     * How weights are updated.
     *
     * @param sides which linear layers change
     * @param correlated whether the update compensates for all pruned units together; otherwise it sums
     *     independent updates for single units
     * @param damping share of the mean diagonal of A that is added to it
     * @param gradientDamping share of the mean diagonal of G that is added to it
     */
    public record Settings(Sides sides, boolean correlated, double damping, double gradientDamping) {}

    private final PrunedState state;
    private final Settings settings;
    private final WeightStore store;
    private final BiasStore biases;
    private final Log log;
    private final Map<Dimension, int[]> kept = new LinkedHashMap<>();

    /**
     * A linear layer that changes.
     *
     * @param bias the current bias; null if the layer has no bias of its own
     * @param inputs the input channels of each unit that this step prunes
     * @param outputs the output channels of each unit that this step prunes
     */
    @SuppressWarnings("ArrayRecordComponent") // never compared
    private record Change(PrunedLinear layer, double[] bias, List<int[]> inputs, List<int[]> outputs) {}

    private KroneckerUpdate(PrunedModel model, Plan target, Settings settings) {
        this.state = model.state();
        this.settings = settings;
        this.store = new WeightStore(model.folder());
        this.biases = new BiasStore(state);
        this.log = model.log();
        for (Dimension dimension : state.structure().dimensions()) {
            int[] units = target.keep().get(dimension.name());
            if (units != null) {
                kept.put(dimension, units);
            }
        }
    }

    /**
     * Computes new weights of the dense model, zero for pruned units.
     *
     * @param model the model before the step
     * @param target the kept units of the dense model after the step
     * @return the changed weights and biases of the dense model
     * @throws io.onnxprune.diag.UserException when a second moment cannot be inverted, or a run fails
     */
    public static Map<Value, Tensor> of(PrunedModel model, Plan target, Settings settings) {
        return new KroneckerUpdate(model, target, settings).run(model);
    }

    private Map<Value, Tensor> run(PrunedModel model) {
        List<Change> changes = new ArrayList<>();
        Set<Tap> taps = new LinkedHashSet<>();
        for (PrunedLinear layer : model.linears()) {
            List<int[]> inputs = settings.sides.inputs() ? prunedUnits(layer, false) : List.of();
            List<int[]> outputs = settings.sides.outputs() ? prunedUnits(layer, true) : List.of();
            if (!inputs.isEmpty() || !outputs.isEmpty()) {
                Change change = new Change(layer, biases.of(layer), inputs, outputs);
                changes.add(change);
                taps.addAll(taps(change));
            }
        }
        Map<Value, Tensor> updates = new HashMap<>();
        try (Statistics statistics = model.source().of(model.calibrator(), taps)) {
            for (Change change : changes) {
                updates.put(change.layer.dense().weight(), update(change, statistics));
            }
        }
        updates.putAll(biases.updates());
        return updates;
    }

    private static Set<Tap> taps(Change change) {
        Set<Tap> taps = new LinkedHashSet<>();
        if (!change.inputs.isEmpty()) {
            taps.addAll(Statistics.ofInputs(change.layer.lowered().input(), change.bias != null));
        }
        if (!change.outputs.isEmpty()) {
            taps.add(new Tap.GradientSecondMoment(change.layer.lowered().output()));
        }
        return taps;
    }

    /** The channels of each unit that this step prunes. */
    private List<int[]> prunedUnits(PrunedLinear layer, boolean outputs) {
        List<int[]> prunedUnits = new ArrayList<>();
        kept.forEach((dimension, keptUnits) -> {
            if (!(outputs ? layer.dense().produces(dimension) : layer.dense().consumes(dimension))) {
                return;
            }
            List<int[]> units = outputs ? layer.outputUnits(dimension) : layer.units(dimension);
            for (int unit = 0; unit < units.size(); unit++) {
                if (units.get(unit).length > 0 && Arrays.binarySearch(keptUnits, unit) < 0) {
                    prunedUnits.add(units.get(unit));
                }
            }
        });
        return prunedUnits;
    }

    private Tensor update(Change change, Statistics statistics) {
        LoweredLinear linear = change.layer.lowered();
        PrunedLinear layer = change.layer;
        double[] bias = change.bias;
        String label = layer.dense().node();
        Damping damping = new Damping(settings.damping, statistics.tokens(), label, log);
        Damping outputDamping = new Damping(settings.gradientDamping, statistics.tokens(), label, log);
        try (Matrix before = layer.read(bias);
                Matrix first = change.inputs.isEmpty()
                        ? before.copy()
                        : pruneInputs(
                                () -> statistics.inputs(linear.input(), bias != null), before, change.inputs, damping);
                Matrix after = change.outputs.isEmpty()
                        ? first.copy()
                        : pruneOutputs(linear, first, change.outputs, statistics, outputDamping)) {
            if (bias != null) {
                double[] updated = new double[bias.length];
                after.getRow(after.rows() - 1, updated);
                biases.add(
                        layer,
                        IntStream.range(0, bias.length)
                                .mapToDouble(i -> updated[i] - bias[i])
                                .toArray());
            }
            return layer.toDense(after.block(0, 0, layer.rows().length, layer.columns().length), store);
        }
    }

    private Matrix pruneOutputs(
            LoweredLinear linear, Matrix w, List<int[]> prunedUnits, Statistics statistics, Damping damping) {
        try (Matrix transposed = w.transposed();
                Matrix updated =
                        pruneInputs(() -> statistics.gradients(linear.output()), transposed, prunedUnits, damping)) {
            return updated.transposed();
        }
    }

    /** The weights pruneInputs the pruned inputs, with compensation in the metric of a second moment. */
    private Matrix pruneInputs(Supplier<Matrix> moment, Matrix w, List<int[]> prunedUnits, Damping damping) {
        try (Matrix a = moment.get()) {
            if (!settings.correlated) {
                return LeastSquares.independentUpdates(a, w, prunedUnits, damping);
            }
            BitSet keptInputs = new BitSet();
            keptInputs.set(0, w.rows());
            prunedUnits.forEach(unit -> IntStream.of(unit).forEach(keptInputs::clear));
            return LeastSquares.keep(a, w, keptInputs.stream().toArray(), damping);
        }
    }
}
