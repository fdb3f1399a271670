// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import io.onnxprune.diag.UsageException;
import io.onnxprune.ir.DType;
import java.nio.file.Path;
import java.util.Locale;
import java.util.Optional;

/**
 * The options that models are run with.
 *
 * @param provider the execution provider
 * @param device number of the CUDA device; not used on the CPU
 * @param threads number of threads of one operator; 0 for as many as there are cores
 * @param library a libonnxruntime to use instead of the one on the class path
 * @param precision the type of matrix products. Sessions without optimisation, whose results are compared with each
 *     other, always multiply float32 as float32
 */
public record RuntimeOptions(Provider provider, int device, int threads, Optional<Path> library, Precision precision) {
    /** An ONNX Runtime execution provider. */
    public enum Provider {
        CPU,
        CUDA
    }

    /** The type in which float32 matrices are multiplied. Everything but matrix products is float32 in all of them. */
    public enum Precision {
        FLOAT32,
        /** float32 with 10 bits of mantissa, by an option of the CUDA provider. */
        TF32,
        /** 7 bits of mantissa and the range of float32, in calibration and training. */
        BFLOAT16,
        /** 10 bits of mantissa and a small range, in calibration without gradients. */
        FLOAT16;

        /** The 16-bit type that operands and results of products are rounded to; empty for none. */
        public Optional<DType> rounded() {
            return switch (this) {
                case FLOAT32, TF32 -> Optional.empty();
                case BFLOAT16 -> Optional.of(DType.BFLOAT16);
                case FLOAT16 -> Optional.of(DType.FLOAT16);
            };
        }

        /** The name of this type on the command line. */
        public String title() {
            return name().toLowerCase(Locale.ROOT);
        }

        /**
         * Refuses a type that cannot represent gradients.
         *
         * @param what what computes gradients, the subject of the message
         * @throws UsageException for float16
         */
        public void requireGradients(String what) {
            if (this == FLOAT16) {
                throw new UsageException(what
                        + " computes gradients, and float16 rounds those below 3e-8 to zero; use --precision bfloat16, which has"
                        + " the range of float32");
            }
        }
    }

    /** Options for the CPU with all cores and the library on the class path. */
    public static RuntimeOptions cpu() {
        return cpu(0);
    }

    /** Options for the CPU with a number of threads (0 for all cores) and the library on the class path. */
    public static RuntimeOptions cpu(int threads) {
        return new RuntimeOptions(Provider.CPU, 0, threads, Optional.empty(), Precision.FLOAT32);
    }

    /** These options with another type of matrix products. */
    public RuntimeOptions with(Precision changed) {
        return new RuntimeOptions(provider, device, threads, library, changed);
    }
}
