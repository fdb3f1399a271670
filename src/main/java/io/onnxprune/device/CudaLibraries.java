// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.device;

import com.sun.jna.Library;
import com.sun.jna.Native;
import io.onnxprune.diag.UserException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/** Finds the libraries of CUDA: in the loader's folders, or in the one that a system property names. */
final class CudaLibraries {
    /** A folder that is searched before all others. */
    static final String FOLDER_PROPERTY = "onnxprune.cuda.path";

    private static final List<String> RUNTIME = List.of("libcudart.so.13", "libcudart.so.12", "libcudart.so");

    private static final List<String> BLAS = List.of("libcublas.so.13", "libcublas.so.12", "libcublas.so");

    private static @Nullable CudaRuntime runtime;

    private CudaLibraries() {}

    /**
     * The runtime library, which is loaded once.
     *
     * @throws UserException when it is not found
     */
    static synchronized CudaRuntime runtime() {
        if (runtime == null) {
            runtime = load(RUNTIME, CudaRuntime.class);
        }
        return runtime;
    }

    /**
     * cuBLAS.
     *
     * @throws UserException when it is not found
     */
    static Cublas blas() {
        return load(BLAS, Cublas.class);
    }

    /**
     * Loads the first of several libraries that is found.
     *
     * @throws UserException when none is found
     */
    private static <T extends Library> T load(List<String> names, Class<T> functions) {
        NativeAccess.load();
        LinkageError first = null;
        for (String name : names) {
            try {
                return Native.load(place(name), functions);
            } catch (UnsatisfiedLinkError e) {
                first = Objects.requireNonNullElse(first, e);
            }
        }
        throw CudaFailures.library(names.get(0), Objects.requireNonNull(first));
    }

    private static String place(String name) {
        String folder = System.getProperty(FOLDER_PROPERTY);
        if (folder != null && Files.exists(Path.of(folder, name))) {
            return Path.of(folder, name).toAbsolutePath().toString();
        }
        return name;
    }
}
