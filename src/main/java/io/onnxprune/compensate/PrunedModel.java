// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.Statistics;
import io.onnxprune.diag.Log;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.rewrite.PrunedState;
import java.nio.file.Path;
import java.util.List;

/**
 * A pruned model with everything that a compensation step needs to measure it and to change its weights.
 *
 * @param state the pruned model
 * @param layers the linear layers of the dense model
 * @param calibrator runs the pruned model
 * @param source measures its second moments
 * @param folder folder for files of new weights
 * @param log receives warnings and progress
 */
public record PrunedModel(
        PrunedState state, LinearLayers layers, Calibrator calibrator, Statistics.Source source, Path folder, Log log) {
    /** The linear layers whose weights may be changed, in order of execution. */
    List<PrunedLinear> linears() {
        return new PrunedLinears(state, layers).of(calibrator.linears());
    }
}
