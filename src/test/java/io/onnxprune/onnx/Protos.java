// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.onnx;

import ai.onnx.proto.OnnxMl.GraphProto;
import ai.onnx.proto.OnnxMl.ModelProto;
import ai.onnx.proto.OnnxMl.NodeProto;
import ai.onnx.proto.OnnxMl.OperatorSetIdProto;
import ai.onnx.proto.OnnxMl.TensorProto;
import ai.onnx.proto.OnnxMl.TensorShapeProto;
import ai.onnx.proto.OnnxMl.TypeProto;
import ai.onnx.proto.OnnxMl.ValueInfoProto;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** Small models as protobuf messages, for cases that no real export has. */
final class Protos {
    private Protos() {}

    /** The graph {@code y = Relu(x)}, to which a test adds. */
    static GraphProto.Builder graph() {
        return GraphProto.newBuilder()
                .setName("main")
                .addInput(floats("x", 4))
                .addOutput(floats("y", 4))
                .addNode(node("Relu", "x", "y"));
    }

    static ModelProto.Builder model(GraphProto.Builder graph) {
        return ModelProto.newBuilder()
                .setIrVersion(10)
                .addOpsetImport(OperatorSetIdProto.newBuilder().setDomain("").setVersion(21))
                .setGraph(graph);
    }

    static NodeProto.Builder node(String op, String input, String output) {
        return NodeProto.newBuilder()
                .setName("make_" + output)
                .setOpType(op)
                .addInput(input)
                .addOutput(output);
    }

    static ValueInfoProto.Builder floats(String name, long extent) {
        return ValueInfoProto.newBuilder()
                .setName(name)
                .setType(TypeProto.newBuilder()
                        .setTensorType(TypeProto.Tensor.newBuilder()
                                .setElemType(TensorProto.DataType.FLOAT_VALUE)
                                .setShape(TensorShapeProto.newBuilder()
                                        .addDim(TensorShapeProto.Dimension.newBuilder()
                                                .setDimValue(extent)))));
    }

    static Path write(Path folder, ModelProto.Builder model) throws IOException {
        return Files.write(folder.resolve("in.onnx"), model.build().toByteArray());
    }
}
