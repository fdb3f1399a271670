// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import java.nio.file.Path;

/**
 * How calibration runs.
 *
 * @param memory bytes that it may take, beside the program itself
 * @param workFolder where activations go that do not fit, and where a long run notes how far it is
 * @param resume whether to go on where an earlier run of the same kind was stopped
 * @param draws how many times gradients are taken of next tokens that the model itself draws, instead of once of those in the
 *     data; 0 for the latter
 */
public record CalibrationOptions(long memory, Path workFolder, boolean resume, int draws) {
    /** What is taken unless asked otherwise: 4 GB. */
    public static final long DEFAULT_MEMORY = 4_000_000_000L;

    /** Options with gradients of the data's own next tokens. */
    public CalibrationOptions(long memory, Path workFolder, boolean resume) {
        this(memory, workFolder, resume, 0);
    }

    /** The same with so many draws. */
    public CalibrationOptions withDraws(int times) {
        return new CalibrationOptions(memory, workFolder, resume, times);
    }
}
