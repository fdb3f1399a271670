// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.device;

import com.sun.jna.Native;
import io.onnxprune.diag.CacheFolder;
import io.onnxprune.diag.UserException;

/** Loads JNA. Its native part is unpacked into the program's cache folder. */
public final class NativeAccess {
    private static final String FOLDER = "jna.tmpdir";

    private static boolean loaded;

    private NativeAccess() {}

    /**
     * Loads JNA if it is not loaded yet. Must be called before any of JNA's classes is initialised.
     *
     * @throws UserException when its native part cannot be unpacked or loaded
     */
    public static synchronized void load() {
        if (loaded) {
            return;
        }
        setDefault(FOLDER, CacheFolder.folder("jna").toString());
        // A library of the system may belong to another version of JNA.
        setDefault("jna.nosys", "true");
        try {
            loaded = Native.POINTER_SIZE == Long.BYTES;
        } catch (LinkageError e) {
            throw new UserException(
                    "the library for native calls (JNA) cannot be loaded from %s: %s"
                            .formatted(System.getProperty(FOLDER), e.getMessage()),
                    e);
        }
        if (!loaded) {
            throw new UserException("a GPU can be used by a 64-bit Java only; install one, or use --provider cpu");
        }
    }

    private static void setDefault(String property, String value) {
        if (System.getProperty(property) == null) {
            System.setProperty(property, value);
        }
    }
}
