// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.algebra;

import io.onnxprune.diag.CacheFolder;
import io.onnxprune.diag.UserException;
import org.bytedeco.javacpp.Loader;
import org.bytedeco.openblas.global.openblas_nolapack;

/** Loads OpenBLAS. Its libraries are unpacked once, under a lock, so that processes may start at the same time. */
final class NativeBlas {
    private static final String CACHE = "org.bytedeco.javacpp.cachedir";

    private static boolean loaded;
    private static int threads;

    private NativeBlas() {}

    /**
     * Loads the library if it is not loaded yet. Must be called before any other class of JavaCPP is initialised.
     *
     * @throws UserException when there is no library for this platform or it cannot be unpacked
     */
    static synchronized void load() {
        if (loaded) {
            return;
        }
        setDefault(CACHE, CacheFolder.folder("javacpp").toString());
        // JavaCPP must not write to standard error; failures are thrown anyway.
        setDefault("org.bytedeco.javacpp.logger", "slf4j");
        // Otherwise JavaCPP would limit memory outside the heap to the size of the heap.
        setDefault("org.bytedeco.javacpp.maxBytes", "0");
        setDefault("org.bytedeco.javacpp.maxPhysicalBytes", "0");
        try {
            Loader.load(openblas_nolapack.class);
        } catch (LinkageError e) {
            throw new UserException(
                    "the native library for linear algebra (OpenBLAS) cannot be loaded from %s: %s; this build has it for Linux on x86-64"
                            .formatted(System.getProperty(CACHE), e.getMessage()),
                    e);
        }
        loaded = true;
        applyThreads();
    }

    /** Sets the number of threads, 0 for all cores. Does not load the library. */
    static synchronized void setThreads(int count) {
        threads = count;
        if (loaded) {
            applyThreads();
        }
    }

    private static void applyThreads() {
        openblas_nolapack.blas_set_num_threads(
                threads > 0 ? threads : Runtime.getRuntime().availableProcessors());
    }

    private static void setDefault(String property, String value) {
        if (System.getProperty(property) == null) {
            System.setProperty(property, value);
        }
    }
}
