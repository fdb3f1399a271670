// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtSession.Result;
import ai.onnxruntime.TensorInfo;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.DType;
import java.nio.ByteBuffer;

/** The outputs of a run, in the runtime's memory until this is closed. */
public final class Outputs implements AutoCloseable {
    private static final String TYPE_PREFIX = "ONNX_TENSOR_ELEMENT_DATA_TYPE_";

    private final Result result;

    Outputs(Result result) {
        this.result = result;
    }

    static DType dtype(TensorInfo info) {
        return DType.valueOf(info.onnxType.name().substring(TYPE_PREFIX.length()));
    }

    /** Whether the output was computed and is a tensor. */
    public boolean has(String name) {
        return result.get(name).filter(OnnxTensor.class::isInstance).isPresent();
    }

    /**
     * The extents of an output.
     *
     * @throws UserException when it was not computed or is not a tensor
     */
    public long[] shape(String name) {
        return onnx(name).getInfo().getShape().clone();
    }

    /**
     * The element type of an output.
     *
     * @throws UserException when it was not computed or is not a tensor
     */
    public DType dtype(String name) {
        return dtype(onnx(name).getInfo());
    }

    /**
     * A copy of an output in its own element type.
     *
     * @throws UserException when it was not computed, is not a numeric tensor, or has 2 GiB or more
     */
    public HostTensor tensor(String name) {
        OnnxTensor tensor = onnx(name);
        DType dtype = dtype(tensor.getInfo());
        long[] shape = tensor.getInfo().getShape();
        if (dtype.bits() < 8) {
            throw new UserException("the output %s is of type %s and cannot be read".formatted(name, dtype));
        }
        if (dtype.bytes(HostTensor.elements(shape)) > Integer.MAX_VALUE - 64L) {
            throw new UserException(
                    "the output %s has 2 GiB or more, which Java cannot read; run smaller batches".formatted(name));
        }
        ByteBuffer bytes = tensor.getByteBuffer();
        return new HostTensor(dtype, shape, bytes);
    }

    OnnxTensor onnx(String name) {
        if (result.get(name).orElse(null) instanceof OnnxTensor tensor) {
            return tensor;
        }
        throw new UserException("the output " + name + " was not computed or is not a tensor");
    }

    @Override
    public void close() {
        result.close();
    }
}
