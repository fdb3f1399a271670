// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.device;

import io.onnxprune.diag.OutOfMemoryException;

/** The message about an allocation that fails. */
final class OutOfMemory {
    private OutOfMemory() {}

    /** Names the requested bytes, the free and the total ones, and what to lower. */
    static OutOfMemoryException of(String device, long bytes, long free, long total) {
        return new OutOfMemoryException(
                "out of memory on %s: %d bytes are requested, and %d of %d are free; lower --device-memory, --samples or --seq-len"
                        .formatted(device, bytes, free, total));
    }
}
