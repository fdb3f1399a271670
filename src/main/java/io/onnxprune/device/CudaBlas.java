// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.device;

/**
 * cuBLAS on one GPU, with one handle for the whole process. Calls are queued on CUDA's default stream and done in their
 * order, before any later copy of {@link CudaDevice}. Untried on a GPU.
 */
public final class CudaBlas {
    private final CudaDevice device;
    private final Cublas functions;
    private final long handle;

    /** A call of one function. */
    public interface Call {
        /** Calls it and returns its status. */
        int on(Cublas functions, long handle);
    }

    CudaBlas(CudaDevice device, Cublas functions) {
        this.device = device;
        this.functions = functions;
        device.select();
        long[] created = new long[1];
        check("cublasCreate", functions.cublasCreate_v2(created));
        handle = created[0];
    }

    /**
     * Calls a function of cuBLAS.
     *
     * @param name of the function, for the message
     * @throws io.onnxprune.diag.UserException when it fails
     */
    public synchronized void call(String name, Call call) {
        device.select();
        check(name, call.on(functions, handle));
    }

    private void check(String name, int status) {
        if (status != 0) {
            throw CudaFailures.blas(name, device.name(), status, functions.cublasGetStatusString(status));
        }
    }
}
