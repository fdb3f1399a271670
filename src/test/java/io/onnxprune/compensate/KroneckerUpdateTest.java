// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.LoweredLinear;
import io.onnxprune.calibrate.Statistics;
import io.onnxprune.calibrate.Tap;
import io.onnxprune.compensate.KroneckerUpdate.Settings;
import io.onnxprune.compensate.KroneckerUpdate.Sides;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.plan.Plan;
import io.onnxprune.rewrite.OutputBiases;
import io.onnxprune.rewrite.PrunedState;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("ort")
@Tag("slow")
class KroneckerUpdateTest {
    private static final double DAMPING = 1e-6;

    @TempDir
    private Path folder;

    /** In every linear layer ½ tr(Δᵀ A Δ G) is smaller than without compensation and than with independent updates. */
    @ParameterizedTest
    @ValueSource(strings = {"opt-c", "llama-gqa-d", "gpt2-cb"})
    void everyLinearLayerCompensatesForAllUnitsTogether(String name) {
        Structure structure = TestModels.structure(name);
        PrunedState state = PrunedState.whole(structure, Plan.keepAll(""));
        LinearLayers layers = LinearLayers.of(structure);
        Plan target = Runs.plan(structure, 0.25, "heads", "ffn");
        Calibrator calibrator = Runs.calibrator(state.model(), folder);
        Set<Value> read = new HashSet<>();
        Set<Value> made = new HashSet<>();
        for (LoweredLinear linear : calibrator.linears()) {
            LinearLayer layer = layers.ofWeight(linear.weight());
            boolean[] inputs = pruned(structure, target, layer, false);
            boolean[] outputs = pruned(structure, target, layer, true);
            if (any(inputs)) {
                read.add(layer.weight());
            }
            if (any(outputs)) {
                made.add(layer.weight());
            }
        }
        assertThat(read).hasSizeGreaterThan(2);
        assertThat(made).hasSizeGreaterThan(2).doesNotContainAnyElementsOf(read);

        Map<Value, Tensor> inputs = updates(state, layers, target, calibrator, Sides.INPUTS, true);
        Map<Value, Tensor> both = updates(state, layers, target, calibrator, Sides.BOTH, true);
        Map<Value, Tensor> independent = updates(state, layers, target, calibrator, Sides.BOTH, false);
        assertThat(inputs.keySet()).containsAll(read).doesNotContainAnyElementsOf(made);
        assertThat(both.keySet()).containsAll(read).containsAll(made);
        for (LoweredLinear linear : calibrator.linears()) {
            LinearLayer layer = layers.ofWeight(linear.weight());
            if (read.contains(layer.weight()) || made.contains(layer.weight())) {
                double withoutUpdate = loss(structure, target, calibrator, linear, layer, Map.of());
                double correlated = loss(structure, target, calibrator, linear, layer, both);
                assertThat(correlated).as(linear.node()).isLessThan(withoutUpdate);
                assertThat(correlated)
                        .as(linear.node())
                        .isLessThan(loss(structure, target, calibrator, linear, layer, independent) * (1 + 1e-6));
            }
        }
    }

    private Map<Value, Tensor> updates(
            PrunedState state,
            LinearLayers layers,
            Plan target,
            Calibrator calibrator,
            Sides sides,
            boolean correlated) {
        return KroneckerUpdate.of(
                new PrunedModel(
                        state,
                        layers,
                        calibrator,
                        (model, taps) -> Statistics.measure(model, Runs.rows(40), taps),
                        folder,
                        Log.NONE),
                target,
                new Settings(sides, correlated, DAMPING, DAMPING));
    }

    /** Which inputs or outputs of a linear layer belong to pruned units. */
    private static boolean[] pruned(Structure structure, Plan target, LinearLayer layer, boolean outputs) {
        boolean[] pruned = new boolean[outputs ? layer.outputs() : layer.inputs()];
        for (Dimension dimension : structure.dimensions()) {
            int[] kept = target.keep().get(dimension.name());
            int[] unitOf = kept == null ? null : outputs ? layer.outputUnits(dimension) : layer.units(dimension);
            for (int channel = 0; unitOf != null && channel < unitOf.length; channel++) {
                pruned[channel] |= unitOf[channel] >= 0 && Arrays.binarySearch(kept, unitOf[channel]) < 0;
            }
        }
        return pruned;
    }

    private static boolean any(boolean[] marks) {
        for (boolean mark : marks) {
            if (mark) {
                return true;
            }
        }
        return false;
    }

    /** The quadratic loss of a linear layer with zeros for pruned units. Its bias counts as one more input. */
    private static double loss(
            Structure structure,
            Plan target,
            Calibrator calibrator,
            LoweredLinear linear,
            LinearLayer layer,
            Map<Value, Tensor> updates) {
        List<Value> biases = new OutputBiases(structure).of(layer);
        Value bias = biases.isEmpty() ? null : biases.get(0);
        List<Tap> taps = new ArrayList<>(Statistics.ofInputs(linear.input(), bias != null));
        taps.add(new Tap.GradientSecondMoment(linear.output()));
        Map<Value, Tensor> before = new HashMap<>();
        try (Statistics statistics = Statistics.measure(calibrator, Runs.rows(40), taps);
                Matrix a = statistics.inputs(linear.input(), bias != null);
                Matrix g = statistics.gradients(linear.output());
                Matrix old = weights(layer, bias, before);
                Matrix delta = weights(layer, bias, updates)) {
            boolean[] inputs = pruned(structure, target, layer, false);
            boolean[] outputs = pruned(structure, target, layer, true);
            for (int i = 0; i < delta.rows(); i++) {
                for (int j = 0; j < delta.columns(); j++) {
                    boolean zero = i < inputs.length && inputs[i] || outputs[j];
                    delta.set(i, j, (zero ? 0 : delta.get(i, j)) - old.get(i, j));
                }
            }
            try (Matrix left = Blas.product(a, delta);
                    Matrix right = Blas.product(delta, g)) {
                return WeightStore.dot(left, right) / 2;
            }
        }
    }

    private static Matrix weights(LinearLayer layer, Value bias, Map<Value, Tensor> updates) {
        Tensor weight = updates.getOrDefault(layer.weight(), layer.weight().constant());
        double[] row = null;
        if (bias != null) {
            float[] values = updates.getOrDefault(bias, bias.constant()).toFloats();
            row = new double[values.length];
            for (int i = 0; i < row.length; i++) {
                row[i] = values[i];
            }
        }
        Matrix w = WeightStore.read(weight, layer.axis());
        if (row == null) {
            return w;
        }
        try (w) {
            return w.withRow(row);
        }
    }
}
