// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.pass;

import io.onnxprune.calibrate.CalibrationOptions;
import io.onnxprune.emit.ModelFolder;
import io.onnxprune.emit.OutputTarget;
import java.util.Optional;

/**
 * The settings of one run.
 *
 * @param method name of the recipe, for messages
 * @param input the model's files
 * @param output where the result goes; empty for a dry run
 * @param calibration memory, work folder and resumption
 * @param seed of everything random
 * @param threads for work outside the runtime
 */
public record RunSettings(
        String method,
        ModelFolder input,
        Optional<Output> output,
        CalibrationOptions calibration,
        long seed,
        int threads) {
    /**
     * Where a result goes.
     *
     * @param externalData whether weights are kept outside the model file
     * @param lastLogits whether the model is to give logits of the last position only
     */
    public record Output(OutputTarget target, boolean externalData, boolean lastLogits) {}
}
