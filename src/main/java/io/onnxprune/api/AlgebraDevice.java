// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import io.onnxprune.algebra.Blas;
import io.onnxprune.device.CudaDevice;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.RuntimeOptions;

/** Lets the dense algebra of the process run where the models do. */
final class AlgebraDevice {
    private AlgebraDevice() {}

    /**
     * Selects the GPU of a runtime on CUDA, else the host.
     *
     * @throws io.onnxprune.diag.UserException when a library of CUDA is missing, or the GPU cannot be used
     */
    static void select(OnnxRuntime runtime) {
        RuntimeOptions options = runtime.options();
        if (options.provider() == RuntimeOptions.Provider.CUDA) {
            Blas.useDevice(CudaDevice.open(options.device()));
        } else {
            Blas.useHost();
        }
    }
}
