// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.measure;

import io.onnxprune.calibrate.CalibrationOptions;
import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.GradientSink;
import io.onnxprune.calibrate.ResumableSink;
import io.onnxprune.diag.Log;
import io.onnxprune.ir.Model;
import io.onnxprune.plan.Taylor;
import io.onnxprune.runtime.OnnxRuntime;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;

/**
 * Computes gradients of a model over rows of tokens.
 *
 * @param data token ids, all rows of equal length
 * @param key identifies these gradients and their use, so that a stopped run can resume
 */
record ModelGradients(
        Model model, List<long[]> data, OnnxRuntime runtime, CalibrationOptions options, String key, Log log)
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
        if (sink instanceof ResumableSink resumable) {
            int rows = Arrays.deepHashCode(data.toArray());
            calibrator.gradients(data, known, squares, resumable, key + '-' + Integer.toHexString(rows));
        } else {
            calibrator.gradients(data, known, squares, sink);
        }
    }
}
