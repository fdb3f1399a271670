// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.device;

import java.nio.ByteBuffer;

/**
 * Memory that sessions and dense algebra work in: the host's, or that of a GPU. Addresses are raw pointers. They are
 * not checked, so a wrong one ends the process or spoils other memory. All methods have finished their work when they
 * return, and may be called by several threads.
 */
public interface Device {
    /**
     * Allocates memory, whose content is undefined. Zero bytes have an address too.
     *
     * @throws io.onnxprune.diag.UserException when there is too little memory
     */
    long allocate(long bytes);

    /** Frees memory that {@link #allocate} returned. */
    void free(long address);

    /** Sets bytes to zero. */
    void clear(long address, long bytes);

    /** Copies all remaining bytes of a direct or heap buffer to this memory. The buffer's position does not change. */
    void write(long address, ByteBuffer from);

    /** Fills all remaining bytes of a direct or heap buffer from this memory. The buffer's position does not change. */
    void read(long address, ByteBuffer to);

    /** Copies bytes within this memory; the two places must not overlap. */
    void copy(long from, long to, long bytes);

    /** Number of bytes that are free now, also for other processes. */
    long freeBytes();

    /** Number of bytes of the whole memory. */
    long totalBytes();

    /** What a user calls it: {@code NVIDIA H200}, or {@code host memory}. */
    String name();

    /** Whether this is the host's memory. */
    boolean isHost();
}
