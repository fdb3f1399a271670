// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import io.onnxprune.ir.DType;

/**
 * A dense tensor that a session reads or writes, row-major: in this process's memory, or in the memory of the device
 * that the session runs on.
 */
public sealed interface RuntimeTensor permits HostTensor, DeviceTensor {
    /** Element type, of fixed width and at least 8 bits. */
    DType dtype();

    /** A copy of the extents, outermost first; empty for a scalar. */
    long[] shape();

    /** Bytes of all elements. */
    long byteSize();

    /** The elements in this process's memory: this tensor itself if it is there, else a copy. */
    HostTensor toHost();

    /** Like {@link #toHost}, for a tensor that nobody uses any more: what it holds of a device is given back. */
    default HostTensor moveToHost() {
        HostTensor host = toHost();
        release();
        return host;
    }

    /** Sets all elements to zero. */
    void clear();

    /**
     * Gives device memory back at once; the tensor must not be used any more. Does nothing for a tensor in this
     * process's memory, which the garbage collector frees.
     */
    void release();
}
