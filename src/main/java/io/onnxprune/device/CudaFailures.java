// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.device;

import io.onnxprune.diag.UserException;

/** Turns error codes of CUDA into messages of one sentence that name a remedy. */
final class CudaFailures {
    static final int MEMORY_ALLOCATION = 2;
    /** A status of cuBLAS: too little memory for its own use. */
    private static final int BLAS_ALLOCATION = 3;

    private static final int STUB_LIBRARY = 34;
    /** CUDA also returns this when there is no driver at all. */
    private static final int INSUFFICIENT_DRIVER = 35;

    private static final int NO_DEVICE = 100;
    private static final int INVALID_DEVICE = 101;

    private CudaFailures() {}

    /** A library that is not found or lacks a function. */
    static UserException library(String names, LinkageError cause) {
        return new UserException(
                "the CUDA libraries are not found: %s cannot be loaded (%s); put the folder of CUDA on LD_LIBRARY_PATH, or use --provider cpu"
                        .formatted(names, String.valueOf(cause.getMessage()).replaceAll("\\s+", " ")),
                cause);
    }

    /** A version of the runtime library that is too old. */
    static UserException version(int version, int wanted) {
        return new UserException(
                "CUDA %d.%d is too old, %d.0 or newer is needed; put the folder of a newer CUDA on LD_LIBRARY_PATH, or use --provider cpu"
                        .formatted(version / 1000, version % 1000 / 10, wanted / 1000));
    }

    /** A device that cannot be opened. */
    static UserException open(int ordinal, int error, String text) {
        String reason = "(CUDA error %d: %s)".formatted(error, text);
        return new UserException(
                switch (error) {
                    case INSUFFICIENT_DRIVER, STUB_LIBRARY ->
                        "there is no CUDA device: the NVIDIA driver is missing, or older than the CUDA libraries %s; see whether nvidia-smi lists a GPU, or use --provider cpu"
                                .formatted(reason);
                    case NO_DEVICE ->
                        "there is no CUDA device %s; see whether nvidia-smi lists a GPU, or use --provider cpu"
                                .formatted(reason);
                    case INVALID_DEVICE ->
                        "there is no CUDA device %d %s; choose another with --device, or use --provider cpu"
                                .formatted(ordinal, reason);
                    case MEMORY_ALLOCATION ->
                        "CUDA device %d has no memory left to start with %s; end other programs that nvidia-smi lists, or choose another with --device"
                                .formatted(ordinal, reason);
                    default ->
                        "CUDA device %d cannot be used %s; see whether nvidia-smi lists it, choose another with --device, or use --provider cpu"
                                .formatted(ordinal, reason);
                });
    }

    /** A call that fails after the device was opened, such as error 700 or 719. The device then stays unusable. */
    static UserException call(String function, String device, int error, String text) {
        return new UserException(
                "%s stopped working: %s failed (CUDA error %d: %s); see what nvidia-smi says, and start again, or use --provider cpu"
                        .formatted(device, function, error, text));
    }

    /** A call of cuBLAS that fails. */
    static UserException blas(String function, String device, int status, String text) {
        if (status == BLAS_ALLOCATION) {
            return new UserException(
                    "out of memory on %s: %s finds no memory (cuBLAS status %d: %s); lower --device-memory, --samples or --seq-len"
                            .formatted(device, function, status, text));
        }
        return new UserException(
                "linear algebra on %s failed: %s (cuBLAS status %d: %s); see what nvidia-smi says, and start again, or use --provider cpu"
                        .formatted(device, function, status, text));
    }
}
