// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import java.nio.file.Path;

/** Readers of this package for tests of other packages. */
public final class CheckpointReaders {
    private CheckpointReaders() {}

    /** Reads a checkpoint of a training session. */
    public static void checkpoint(Path file) {
        ParameterFile.check(file);
    }
}
