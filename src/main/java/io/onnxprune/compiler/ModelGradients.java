package io.onnxprune.compiler;

import io.onnxprune.calibrate.CalibrationOptions;
import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.GradientSink;
import io.onnxprune.diag.Log;
import io.onnxprune.ir.Model;
import io.onnxprune.plan.Taylor;
import io.onnxprune.runtime.OnnxRuntime;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;

/**
 * Gradients of a model in memory over rows of tokens.
 *
 * @param data token ids, all rows of one length
 */
record ModelGradients(Model model, List<long[]> data, OnnxRuntime runtime, CalibrationOptions options, Log log)
        implements Taylor.Gradients {
    @Override
    public int rows() {
        return data.size();
    }

    @Override
    public void run(Set<String> initializers, boolean squares, GradientSink sink) {
        Calibrator calibrator = Calibrator.of(model, runtime, options, data.get(0).length, log);
        Set<String> known = new TreeSet<>(initializers);
        known.retainAll(calibrator.parameters());
        calibrator.gradients(data, known, squares, sink);
    }
}
