// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import java.nio.file.Path;
import java.util.Optional;

/**
 * Where and how models run.
 *
 * @param provider the execution provider
 * @param device number of the accelerator; without meaning on the CPU
 * @param threads threads that one operator may use; 0 for as many as there are cores
 * @param library a libonnxruntime to use in place of the one on the class path
 * @param tf32 whether CUDA may multiply float32 matrices with 10 bits of mantissa, which is faster; sessions that run the
 *     graph as written, which are compared with each other, never do
 */
public record RuntimeOptions(Provider provider, int device, int threads, Optional<Path> library, boolean tf32) {
    /** Execution providers that models can run on. */
    public enum Provider {
        CPU,
        CUDA
    }

    /** The CPU with all cores and the library of the class path. */
    public static RuntimeOptions cpu() {
        return cpu(0);
    }

    /** The CPU with so many threads, 0 for as many as there are cores, and the library of the class path. */
    public static RuntimeOptions cpu(int threads) {
        return new RuntimeOptions(Provider.CPU, 0, threads, Optional.empty(), false);
    }
}
