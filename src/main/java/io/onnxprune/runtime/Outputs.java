// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import ai.onnxruntime.TensorInfo;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.DType;

/** The outputs of a run, in the runtime's memory until this is closed. */
public abstract sealed class Outputs implements AutoCloseable permits HostOutputs, DeviceOutputs {
    private static final String TYPE_PREFIX = "ONNX_TENSOR_ELEMENT_DATA_TYPE_";

    static DType dtype(TensorInfo info) {
        return DType.valueOf(info.onnxType.name().substring(TYPE_PREFIX.length()));
    }

    /** Whether the output was computed and is a tensor. */
    public abstract boolean has(String name);

    /**
     * The extents of an output.
     *
     * @throws UserException when it was not computed or is not a tensor
     */
    public abstract long[] shape(String name);

    /**
     * The element type of an output.
     *
     * @throws UserException when it was not computed or is not a tensor
     */
    public abstract DType dtype(String name);

    /**
     * A copy of an output in its own element type, in this process's memory.
     *
     * @throws UserException when it was not computed, is not a numeric tensor, or has 2 GiB or more
     */
    public HostTensor tensor(String name) {
        DType dtype = dtype(name);
        if (dtype.bits() < 8) {
            throw new UserException("the output %s is of type %s and cannot be read".formatted(name, dtype));
        }
        if (dtype.bytes(HostTensor.elements(shape(name))) > Integer.MAX_VALUE - 64L) {
            throw new UserException(
                    "the output %s has 2 GiB or more, which Java cannot read; run smaller batches".formatted(name));
        }
        return read(name);
    }

    /**
     * A copy of an output that outlives the run and can be fed without another copy: in the memory of the device that
     * the session runs on.
     *
     * @throws UserException as for {@link #tensor}
     */
    public abstract RuntimeTensor keep(String name);

    abstract HostTensor read(String name);

    static UserException missing(String name) {
        return new UserException("the output " + name + " was not computed or is not a tensor");
    }

    @Override
    public abstract void close();
}
