// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.runtime.SideInputs;
import java.nio.file.Path;

/**
 * The resources and settings of calibration.
 *
 * @param memory bytes that it may use in this process, beside the program itself
 * @param deviceMemory bytes that it may use in the memory of a device; 0 for most of what is free there
 * @param workFolder folder for activations that do not fit into memory and for checkpoints
 * @param resume whether to continue an earlier run of the same kind from its checkpoint
 * @param draws how many times the model draws the next tokens for gradients; 0 to use the next tokens of the data
 *     once
 * @param sides the contents of inputs that do not follow from token ids
 */
public record CalibrationOptions(
        long memory, long deviceMemory, Path workFolder, boolean resume, int draws, SideInputs sides) {
    /** The default memory, 4 GB. */
    public static final long DEFAULT_MEMORY = 4_000_000_000L;

    /** Creates options with gradients for the next tokens of the data. */
    public CalibrationOptions(long memory, Path workFolder, boolean resume) {
        this(memory, 0, workFolder, resume, 0, SideInputs.NONE);
    }

    /** These options with another number of draws. */
    public CalibrationOptions withDraws(int times) {
        return new CalibrationOptions(memory, deviceMemory, workFolder, resume, times, sides);
    }

    /** These options with contents of inputs that do not follow from token ids. */
    public CalibrationOptions withSides(SideInputs given) {
        return new CalibrationOptions(memory, deviceMemory, workFolder, resume, draws, given);
    }

    /** These options with another limit on the memory of a device. */
    public CalibrationOptions withDeviceMemory(long bytes) {
        return new CalibrationOptions(memory, bytes, workFolder, resume, draws, sides);
    }
}
