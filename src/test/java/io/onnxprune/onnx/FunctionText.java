// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.onnx;

import ai.onnx.proto.OnnxMl.AttributeProto;
import ai.onnx.proto.OnnxMl.FunctionProto;
import ai.onnx.proto.OnnxMl.ModelProto;
import ai.onnx.proto.OnnxMl.NodeProto;
import ai.onnx.proto.OnnxMl.ValueInfoProto;
import com.google.protobuf.InvalidProtocolBufferException;
import io.onnxprune.ir.GraphParser;
import io.onnxprune.ir.Model;

/** Local functions for models that are written as text. */
final class FunctionText {
    /** Marks an attribute of a body that takes the value of a float attribute of the call: {@code alpha = "@alpha"}. */
    private static final String REFERENCE = "@";

    private FunctionText() {}

    /**
     * A model with one function more.
     *
     * @param domain of the function; its name is that of the graph of {@code body}
     * @param body the text of a model whose metadata are the attributes of the function, with the default of each, or
     *     none where it is empty
     */
    static Model with(Model model, String domain, String body) {
        try {
            ModelProto proto = ModelProto.parseFrom(ModelWriter.skeleton(GraphParser.parse(body), tensor -> false));
            FunctionProto.Builder function = FunctionProto.newBuilder()
                    .setDomain(domain)
                    .setName(proto.getGraph().getName())
                    .addAllOpsetImport(proto.getOpsetImportList());
            proto.getGraph().getInputList().stream()
                    .map(ValueInfoProto::getName)
                    .forEach(function::addInput);
            proto.getGraph().getOutputList().stream()
                    .map(ValueInfoProto::getName)
                    .forEach(function::addOutput);
            proto.getGraph().getNodeList().forEach(node -> function.addNode(referring(node)));
            proto.getMetadataPropsList().forEach(entry -> {
                if (entry.getValue().isEmpty()) {
                    function.addAttribute(entry.getKey());
                } else {
                    function.addAttributeProto(AttributeProto.newBuilder()
                            .setName(entry.getKey())
                            .setType(AttributeProto.AttributeType.FLOAT)
                            .setF(Float.parseFloat(entry.getValue())));
                }
            });
            byte[] rest = ModelProto.parseFrom(model.rest()).toBuilder()
                    .addFunctions(function)
                    .build()
                    .toByteArray();
            return new Model(
                    model.irVersion(),
                    model.opsets(),
                    model.graph(),
                    model.metadata(),
                    model.externalData(),
                    model.source(),
                    rest);
        } catch (InvalidProtocolBufferException e) {
            throw new IllegalStateException(e);
        }
    }

    private static NodeProto referring(NodeProto node) {
        NodeProto.Builder changed = node.toBuilder();
        for (AttributeProto.Builder attribute : changed.getAttributeBuilderList()) {
            String text = attribute.getS().toStringUtf8();
            if (text.startsWith(REFERENCE)) {
                attribute
                        .clearS()
                        .setType(AttributeProto.AttributeType.FLOAT)
                        .setRefAttrName(text.substring(REFERENCE.length()));
            }
        }
        return changed.build();
    }
}
