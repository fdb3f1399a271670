// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtSession.Result;
import io.onnxprune.ir.DType;

/** The outputs of a run through the Java API, which are in this process's memory. */
final class HostOutputs extends Outputs {
    private final Result result;

    HostOutputs(Result result) {
        this.result = result;
    }

    @Override
    public boolean has(String name) {
        return result.get(name).filter(OnnxTensor.class::isInstance).isPresent();
    }

    @Override
    public long[] shape(String name) {
        return onnx(name).getInfo().getShape().clone();
    }

    @Override
    public DType dtype(String name) {
        return dtype(onnx(name).getInfo());
    }

    @Override
    HostTensor read(String name) {
        return new HostTensor(dtype(name), shape(name), onnx(name).getByteBuffer());
    }

    @Override
    public HostTensor keep(String name) {
        return tensor(name).direct();
    }

    OnnxTensor onnx(String name) {
        if (result.get(name).orElse(null) instanceof OnnxTensor tensor) {
            return tensor;
        }
        throw missing(name);
    }

    @Override
    public void close() {
        result.close();
    }
}
