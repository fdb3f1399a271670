// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compiler;

import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.SequentialRun;
import io.onnxprune.calibrate.SequentialRun.Reference;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Structure;
import io.onnxprune.eval.CalibrationData;
import io.onnxprune.ir.Model;
import io.onnxprune.plan.Plan;
import io.onnxprune.rewrite.PrunedState;
import io.onnxprune.runtime.OnnxRuntime;
import java.util.List;

/** Runs of the whole model, and of what steps leave of it, on the calibration data of one job. */
final class ModelRuns {
    private final PruneJob job;
    private final Structure structure;
    private final CalibrationData data;
    private final ModelStatistics statistics;
    private final OnnxRuntime runtime;
    private Log log;

    /**
     * Prepares runs.
     *
     * @param data null where the job needs none
     * @param statistics which know how long a row is
     */
    ModelRuns(
            PruneJob job,
            Structure structure,
            CalibrationData data,
            ModelStatistics statistics,
            OnnxRuntime runtime,
            Log log) {
        this.job = job;
        this.structure = structure;
        this.data = data;
        this.statistics = statistics;
        this.runtime = runtime;
        this.log = log;
    }

    /** What later runs would say about a model is what earlier ones said. */
    void quiet() {
        log = log.quiet();
    }

    /** Token ids. */
    List<long[]> rows() {
        return data.rows();
    }

    Calibrator calibrator(Model model) {
        return Calibrator.of(model, runtime, job.calibration(), statistics.length(), log);
    }

    Calibrator ofWhole() {
        return calibrator(structure.analysis().program().model());
    }

    /** Runs a model piece by piece, beside the original if that is needed. */
    void run(PrunedState state, boolean beside, SequentialRun.Editor editor) {
        Reference reference = beside ? new Reference(ofWhole(), widthKept(state.plan())) : null;
        SequentialRun.run(calibrator(state.model()), reference, rows(), editor);
    }

    /** The channels of the residual stream that stay; null for all. */
    private int[] widthKept(Plan plan) {
        Dim.Keep keep = plan.keep(structure);
        List<Dim.Atom> width = structure.stream().width();
        return width.size() == 1 ? keep.kept(width.get(0)) : null;
    }
}
