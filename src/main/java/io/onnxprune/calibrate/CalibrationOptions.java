package io.onnxprune.calibrate;

import java.nio.file.Path;

/**
 * How calibration runs.
 *
 * @param memory bytes that it may take, beside the program itself
 * @param workFolder where activations go that do not fit, and where a long run notes how far it is
 * @param resume whether to go on where an earlier run of the same kind was stopped
 */
public record CalibrationOptions(long memory, Path workFolder, boolean resume) {
    /** What is taken unless asked otherwise: 4 GB. */
    public static final long DEFAULT_MEMORY = 4_000_000_000L;
}
