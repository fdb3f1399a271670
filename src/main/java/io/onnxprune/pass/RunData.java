// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.pass;

import io.onnxprune.eval.CalibrationData;
import io.onnxprune.recover.TrainingRows;
import java.util.Optional;

/**
 * The data of one run.
 *
 * @param calibration rows to measure on, and held-out rows
 * @param training rows to train on, where they are not the calibration rows
 */
public record RunData(Optional<CalibrationData> calibration, Optional<TrainingRows> training) {
    /** No data. */
    public static final RunData NONE = new RunData(Optional.empty(), Optional.empty());

    /** Tokens to measure on; 0 without calibration rows. */
    public long tokens() {
        return calibration
                .filter(CalibrationData::calibrates)
                .map(CalibrationData::tokens)
                .orElse(0L);
    }
}
