// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import java.nio.file.Path;

/** Readers of this package for tests of other packages. */
public final class AdapterReaders {
    private AdapterReaders() {}

    /** Loads an adapter into ONNX Runtime, which must be open. */
    public static void adapter(Path file) {
        LoadedAdapter.load(file).close();
    }
}
