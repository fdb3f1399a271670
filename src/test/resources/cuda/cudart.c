// SPDX-License-Identifier: Apache-2.0
// Stands in for libcudart.so.13 where there is no GPU: the device's memory is the host's. There are two devices, so
// that an ordinal can be wrong. CUDA's own signatures, with plain integers for its enumerations.
#include <stdlib.h>
#include <string.h>

enum { TOTAL = 1 << 30, ERROR_INVALID_VALUE = 1, ERROR_MEMORY = 2, ERROR_INVALID_DEVICE = 101 };

static size_t transfers;
static size_t transferred;

/* For tests: the numbers of copies between host and device and of their bytes since the last call. */
void standInTransfers(size_t *result) {
    result[0] = transfers;
    result[1] = transferred;
    transfers = 0;
    transferred = 0;
}

int cudaRuntimeGetVersion(int *version) {
    *version = 13000;
    return 0;
}

int cudaSetDevice(int device) {
    return device >= 0 && device < 2 ? 0 : ERROR_INVALID_DEVICE;
}

int cudaGetDeviceProperties(void *properties, int device) {
    strcpy(properties, device == 0 ? "Stand-in 0" : "Stand-in 1");
    return 0;
}

int cudaMalloc(void **address, size_t bytes) {
    if (bytes > TOTAL) {
        return ERROR_MEMORY;
    }
    *address = malloc(bytes);
    /* Uninitialised memory must not pass for zeros. */
    memset(*address, 0xff, bytes);
    return 0;
}

int cudaFree(void *address) {
    free(address);
    return 0;
}

int cudaMemset(void *address, int value, size_t bytes) {
    memset(address, value, bytes);
    return 0;
}

/* Static, since CUDA's own library may be in the process too, and its functions would be called by their names. */
static int copy(
        void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height, int kind) {
    if (width > to_pitch || width > from_pitch || kind < 0 || kind > 3) {
        return ERROR_INVALID_VALUE;
    }
    if (kind == 1 || kind == 2) {
        transfers++;
        transferred += width * height;
    }
    for (size_t row = 0; row < height; row++) {
        memcpy((char *) to + row * to_pitch, (const char *) from + row * from_pitch, width);
    }
    return 0;
}

int cudaMemcpy2D(
        void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height, int kind) {
    return copy(to, to_pitch, from, from_pitch, width, height, kind);
}

int cudaMemcpy(void *to, const void *from, size_t bytes, int kind) {
    return copy(to, bytes, from, bytes, bytes, 1, kind);
}

int cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    *free_bytes = TOTAL / 2;
    *total = TOTAL;
    return 0;
}

int cudaStreamSynchronize(void *stream) {
    return stream == NULL ? 0 : ERROR_INVALID_VALUE;
}

const char *cudaGetErrorString(int error) {
    switch (error) {
        case ERROR_MEMORY:
            return "out of memory";
        case ERROR_INVALID_DEVICE:
            return "invalid device ordinal";
        default:
            return "invalid argument";
    }
}
