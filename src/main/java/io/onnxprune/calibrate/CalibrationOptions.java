// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import java.nio.file.Path;

/**
 * The resources and settings of calibration.
 *
 * @param memory bytes that it may use, beside the program itself
 * @param workFolder folder for activations that do not fit into memory and for checkpoints
 * @param resume whether to continue an earlier run of the same kind from its checkpoint
 * @param draws how many times the model draws the next tokens for gradients; 0 to use the next tokens of the data
 *     once
 */
public record CalibrationOptions(long memory, Path workFolder, boolean resume, int draws) {
    /** The default memory, 4 GB. */
    public static final long DEFAULT_MEMORY = 4_000_000_000L;

    /** Creates options with gradients for the next tokens of the data. */
    public CalibrationOptions(long memory, Path workFolder, boolean resume) {
        this(memory, workFolder, resume, 0);
    }

    /** These options with another number of draws. */
    public CalibrationOptions withDraws(int times) {
        return new CalibrationOptions(memory, workFolder, resume, times);
    }
}
