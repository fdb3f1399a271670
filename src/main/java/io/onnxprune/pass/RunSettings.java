// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.pass;

import io.onnxprune.calibrate.CalibrationOptions;
import io.onnxprune.emit.Clients;
import io.onnxprune.emit.ModelFolder;
import io.onnxprune.emit.OutputTarget;
import java.util.Optional;

/**
 * The settings of one run.
 *
 * @param method name of the recipe, for messages
 * @param input the model's files
 * @param delivery whom the result is for and where it goes
 * @param calibration memory, work folder and resumption
 * @param seed of everything random
 * @param threads for work outside the runtime
 */
public record RunSettings(
        String method, ModelFolder input, Delivery delivery, CalibrationOptions calibration, long seed, int threads) {
    /**
     * Whom a result is for, and where it goes.
     *
     * @param output empty for a dry run
     */
    public record Delivery(Clients clients, Optional<Output> output) {}

    /**
     * Where a result goes.
     *
     * @param externalData whether weights are kept outside the model file
     * @param lastLogits whether the model is to give logits of the last position only
     */
    public record Output(OutputTarget target, boolean externalData, boolean lastLogits) {}

    /** Where the result goes; empty for a dry run. */
    public Optional<Output> output() {
        return delivery.output;
    }
}
