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
 * The correlated weight updates of the LLM Surgeon (arXiv 2312.17244, section 4.3), for units that go from several products
 * together: where a product reads a unit, the inputs that stay make up for it in the metric of A = XᵀX; where it makes
 * one, the outputs that stay do in that of G = DᵀD. Both are of the model before the step. A bias is one more input,
 * which is always 1 and always stays.
 */
public final class KroneckerUpdate {
    /** Which products change. */
    public enum Sides {
        /** Those that sum over what goes. */
        INPUTS,
        /** Those that make it. */
        OUTPUTS,
        BOTH;

        private boolean inputs() {
            return this != OUTPUTS;
        }

        private boolean outputs() {
            return this != INPUTS;
        }
    }

    /**
     * What is asked for.
     *
     * @param together whether units that go are made up for together, not each as if it alone went
     * @param damping share of the mean diagonal of A that is added to it
     * @param gradientDamping the same of G
     */
    public record Settings(Sides sides, boolean together, double damping, double gradientDamping) {}

    private final PrunedState state;
    private final Settings settings;
    private final WeightStore store;
    private final BiasStore biases;
    private final Log log;
    private final Map<Dimension, int[]> kept = new LinkedHashMap<>();

    /**
     * A product that changes.
     *
     * @param bias as it is; null if it has none of its own
     * @param inputs the channels of each unit that it reads and that goes in this step
     * @param outputs the same of those that it makes
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
            int[] left = target.keep().get(dimension.name());
            if (left != null) {
                kept.put(dimension, left);
            }
        }
    }

    /**
     * New weights of the original, zero where something is gone.
     *
     * @param model the model before the step
     * @param target what is to be left of the dense model
     * @throws io.onnxprune.diag.UserException when a second moment cannot be inverted, or a run fails
     */
    public static Map<Value, Tensor> of(PrunedModel model, Plan target, Settings settings) {
        return new KroneckerUpdate(model, target, settings).run(model);
    }

    private Map<Value, Tensor> run(PrunedModel model) {
        List<Change> changes = new ArrayList<>();
        Set<Tap> taps = new LinkedHashSet<>();
        for (PrunedLinear layer : model.linears()) {
            List<int[]> inputs = settings.sides.inputs() ? lost(layer, false) : List.of();
            List<int[]> outputs = settings.sides.outputs() ? lost(layer, true) : List.of();
            if (!inputs.isEmpty() || !outputs.isEmpty()) {
                Change change = new Change(layer, biases.of(layer), inputs, outputs);
                changes.add(change);
                taps.addAll(taps(change));
            }
        }
        Map<Value, Tensor> updates = new HashMap<>();
        try (Statistics statistics = model.source().of(model.calibrator(), taps)) {
            for (Change change : changes) {
                updates.put(change.layer.dense().weight(), changed(change, statistics));
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

    /** The channels of each unit that goes in this step. */
    private List<int[]> lost(PrunedLinear layer, boolean outputs) {
        List<int[]> lost = new ArrayList<>();
        kept.forEach((dimension, left) -> {
            if (!(outputs ? layer.dense().makes(dimension) : layer.dense().reads(dimension))) {
                return;
            }
            List<int[]> units = outputs ? layer.outputUnits(dimension) : layer.units(dimension);
            for (int unit = 0; unit < units.size(); unit++) {
                if (units.get(unit).length > 0 && Arrays.binarySearch(left, unit) < 0) {
                    lost.add(units.get(unit));
                }
            }
        });
        return lost;
    }

    private Tensor changed(Change change, Statistics statistics) {
        LoweredLinear linear = change.layer.lowered();
        PrunedLinear layer = change.layer;
        double[] bias = change.bias;
        String label = layer.dense().node();
        Damping damping = new Damping(settings.damping, statistics.tokens(), label, log);
        Damping outward = new Damping(settings.gradientDamping, statistics.tokens(), label, log);
        try (Matrix before = layer.read(bias);
                Matrix first = change.inputs.isEmpty()
                        ? before.copy()
                        : without(
                                () -> statistics.inputs(linear.input(), bias != null), before, change.inputs, damping);
                Matrix after = change.outputs.isEmpty()
                        ? first.copy()
                        : withoutOutputs(linear, first, change.outputs, statistics, outward)) {
            if (bias != null) {
                double[] now = new double[bias.length];
                after.getRow(after.rows() - 1, now);
                biases.add(
                        layer,
                        IntStream.range(0, bias.length)
                                .mapToDouble(i -> now[i] - bias[i])
                                .toArray());
            }
            return layer.toOriginal(after.block(0, 0, layer.rows().length, layer.columns().length), store);
        }
    }

    private Matrix withoutOutputs(
            LoweredLinear linear, Matrix w, List<int[]> lost, Statistics statistics, Damping damping) {
        try (Matrix turned = w.transposed();
                Matrix left = without(() -> statistics.gradients(linear.output()), turned, lost, damping)) {
            return left.transposed();
        }
    }

    /** The weights when some inputs are lost, in the metric of a second moment. */
    private Matrix without(Supplier<Matrix> moment, Matrix w, List<int[]> lost, Damping damping) {
        try (Matrix a = moment.get()) {
            if (!settings.together) {
                return LeastSquares.independentUpdates(a, w, lost, damping);
            }
            BitSet stays = new BitSet();
            stays.set(0, w.rows());
            lost.forEach(unit -> IntStream.of(unit).forEach(stays::clear));
            return LeastSquares.keep(a, w, stays.stream().toArray(), damping);
        }
    }
}
