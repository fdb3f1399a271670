// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.TestModels;
import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.CalibrationOptions;
import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.Statistics;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Model;
import io.onnxprune.plan.Allocation;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.PositionImportance;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.rewrite.PrunedState;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
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
