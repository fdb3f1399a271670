// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import io.onnxprune.algebra.Blas;
import io.onnxprune.runtime.OnnxRuntime;

/** Lets the dense algebra of the process run where the models do. */
final class AlgebraDevice {
    private AlgebraDevice() {}

    /**
     * Selects the device of a runtime, else the host.
     *
     * @throws io.onnxprune.diag.UserException when a library of CUDA is missing, or the GPU cannot be used
     */
    static void select(OnnxRuntime runtime) {
        runtime.device().ifPresentOrElse(Blas::useDevice, Blas::useHost);
    }
}
