// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.onnx;

import ai.onnx.proto.OnnxMl.TypeProto;
import ai.onnx.proto.OnnxMl.ValueInfoProto;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.ValueInfo;

/** Declarations of sequence values. */
public final class SequenceInfo {
    private SequenceInfo() {}

    /** Declares a sequence of float32 tensors. */
    public static ValueInfo ofFloats(String name) {
        TypeProto.Builder element = TypeProto.newBuilder();
        element.getTensorTypeBuilder().setElemType(DType.FLOAT.code());
        ValueInfoProto.Builder info = ValueInfoProto.newBuilder();
        info.getTypeBuilder().getSequenceTypeBuilder().setElemType(element);
        return new ValueInfo(name, DType.UNDEFINED, null, info.build().toByteArray());
    }
}
