// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import java.nio.file.Path;
import java.util.Optional;

/**
 * The options that models are run with.
 *
 * @param provider the execution provider
 * @param device number of the CUDA device; not used on the CPU
 * @param threads number of threads of one operator; 0 for as many as there are cores
 * @param library a libonnxruntime to use instead of the one on the class path
 * @param tf32 whether CUDA may multiply float32 matrices in TF32 (10 bits of mantissa), which is faster. Sessions
 *     without optimisation, whose results are compared with each other, never do
 */
public record RuntimeOptions(Provider provider, int device, int threads, Optional<Path> library, boolean tf32) {
    /** An ONNX Runtime execution provider. */
    public enum Provider {
        CPU,
        CUDA
    }

    /** Options for the CPU with all cores and the library on the class path. */
    public static RuntimeOptions cpu() {
        return cpu(0);
    }

    /** Options for the CPU with a number of threads (0 for all cores) and the library on the class path. */
    public static RuntimeOptions cpu(int threads) {
        return new RuntimeOptions(Provider.CPU, 0, threads, Optional.empty(), false);
    }
}
