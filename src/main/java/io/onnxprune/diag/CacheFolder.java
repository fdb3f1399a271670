// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.diag;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** The folder for files that this program can create again, such as unpacked native libraries. */
public final class CacheFolder {
    private CacheFolder() {}

    /**
     * The folder {@code onnx-prune} in XDG_CACHE_HOME or ~/.cache, created if missing. If it cannot be created, a
     * folder of the user's in the temporary directory.
     */
    public static Path path() {
        String xdg = System.getenv("XDG_CACHE_HOME");
        Path base = xdg == null || xdg.isBlank() ? Path.of(System.getProperty("user.home"), ".cache") : Path.of(xdg);
        Path folder = base.resolve("onnx-prune");
        try {
            return Files.createDirectories(folder);
        } catch (IOException e) {
            return Path.of(System.getProperty("java.io.tmpdir"), "onnx-prune-" + System.getProperty("user.name"));
        }
    }
}
