// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.TestModels;
import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.Activation;
import io.onnxprune.calibrate.CalibrationOptions;
import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.Statistics;
import io.onnxprune.calibrate.Tap;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.Allocation;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.PositionImportance;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.rewrite.PrunedState;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.stream.IntStream;

/** Helpers of tests that run entire models. */
final class Runs {
    static final int LENGTH = 16;

    private Runs() {}

    /** Random tokens that every test model knows; enough that no second moment of 344 channels is singular. */
    static List<long[]> rows(int count) {
        Random random = new Random(5);
        List<long[]> rows = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            rows.add(random.longs(LENGTH, 1, 100).toArray());
        }
        return rows;
    }

    static Calibrator calibrator(Model model, Path folder) {
        CalibrationOptions options = new CalibrationOptions(CalibrationOptions.DEFAULT_MEMORY, folder, false);
        return Calibrator.of(model, TestModels.runtime(), options, LENGTH, Log.NONE);
    }

    static PrunedModel model(PrunedState state, Path folder, Log log) {
        Calibrator calibrator = calibrator(state.model(), folder);
        return new PrunedModel(
                state,
                LinearLayers.of(state.structure()),
                calibrator,
                (model, taps) -> Statistics.measure(model, rows(30), taps),
                folder,
                log);
    }

    /** A plan that removes a share of the parameters, the last units first. */
    static Plan plan(Structure structure, double ratio, String... prune) {
        Budget budget = Budget.ofRatio(PruneSet.parse(List.of(prune)), ratio);
        var scores = new PositionImportance().score(structure, Log.NONE);
        return Allocation.of(structure, scores, budget, "", Log.NONE).plan();
    }

    static int[] kept(Plan plan, Dimension dimension) {
        int[] kept = plan.keep().get(dimension.name());
        return kept == null ? IntStream.range(0, dimension.size()).toArray() : kept;
    }

    /**
     * Checks that biases took the mean of what weights lost, so that the mean output of a layer of the dense model stays.
     *
     * @param all whether that holds for all layers; else for those that take what the first one takes
     * @return the number of layers that were checked
     */
    static int checkMeans(PrunedModel dense, Map<Value, Tensor> updates, boolean all) {
        List<PrunedLinear> linears = dense.linears().stream()
                .filter(layer -> updates.containsKey(layer.dense().weight()))
                .filter(layer -> new BiasStore(dense.state()).of(layer) != null)
                .toList();
        Activation first = linears.get(0).lowered().input();
        List<PrunedLinear> checked = linears.stream()
                .filter(layer -> all || layer.lowered().input().equals(first))
                .toList();
        Set<Tap> taps = new HashSet<>();
        checked.forEach(layer -> taps.addAll(Statistics.ofInputs(layer.lowered().input(), true)));
        PrunedState sparse =
                PrunedState.of(dense.state().structure(), dense.state().plan(), updates);
        try (Statistics statistics = dense.source().of(dense.calibrator(), taps)) {
            double largest = 0;
            for (PrunedLinear layer : checked) {
                double[] old = new BiasStore(dense.state()).of(layer);
                double[] now = new BiasStore(sparse).of(layer);
                Activation input = layer.lowered().input();
                double[] total = Statistics.doubles(statistics.sum(new Tap.Total(input)));
                double count =
                        statistics.sum(new Tap.Positions(input)).asFloats().get(0);
                int axis = layer.dense().axis();
                try (Matrix before = WeightStore.read(layer.weight(), axis);
                        Matrix after =
                                WeightStore.read(updates.get(layer.dense().weight()), axis)) {
                    for (int j = 0; j < old.length; j++) {
                        double lost = 0;
                        for (int i = 0; i < total.length; i++) {
                            lost += total[i] / count * (before.get(i, j) - after.get(i, j));
                        }
                        assertThat(now[j] - old[j]).isCloseTo(lost, within(1e-4));
                        largest = Math.max(largest, Math.abs(lost));
                    }
                }
            }
            assertThat(largest).isGreaterThan(1e-3);
        }
        return checked.size();
    }

    /** tr(Δᵀ A Δ) = ‖XΔ‖² of the difference of two weights. */
    static double error(Matrix a, Matrix left, Matrix right) {
        try (Matrix delta = left.copy()) {
            for (int i = 0; i < delta.rows(); i++) {
                for (int j = 0; j < delta.columns(); j++) {
                    delta.add(i, j, -right.get(i, j));
                }
            }
            try (Matrix product = Blas.product(a, delta)) {
                double sum = 0;
                for (int i = 0; i < delta.rows(); i++) {
                    for (int j = 0; j < delta.columns(); j++) {
                        sum += delta.get(i, j) * product.get(i, j);
                    }
                }
                return sum;
            }
        }
    }
}
