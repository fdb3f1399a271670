// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.device;

import com.sun.jna.Library;

/**
 * The functions of CUDA's runtime library that are used here, as its header {@code cuda_runtime_api.h} declares them.
 * An {@code int} result is an error code. A {@code long} is a pointer or a {@code size_t}; an array of one element is
 * the place of a result.
 */
interface CudaRuntime extends Library {
    int HOST_TO_DEVICE = 1;
    int DEVICE_TO_HOST = 2;
    int DEVICE_TO_DEVICE = 3;

    int cudaRuntimeGetVersion(int[] version);

    int cudaSetDevice(int device);

    /** Fills a {@code struct cudaDeviceProp}, which begins with the name: 256 bytes that end with a zero. */
    int cudaGetDeviceProperties(byte[] properties, int device);

    int cudaMalloc(long[] address, long bytes);

    int cudaFree(long address);

    int cudaMemset(long address, int value, long bytes);

    int cudaMemcpy(long to, long from, long bytes, int kind);

    /** The same function with an array of the host as its target. */
    int cudaMemcpy(double[] to, long from, long bytes, int kind);

    /** The same function with an array of the host as its source. */
    int cudaMemcpy(long to, double[] from, long bytes, int kind);

    int cudaMemcpy2D(long to, long toPitch, long from, long fromPitch, long width, long height, int kind);

    int cudaMemGetInfo(long[] free, long[] total);

    int cudaStreamSynchronize(long stream);

    String cudaGetErrorString(int error);
}
