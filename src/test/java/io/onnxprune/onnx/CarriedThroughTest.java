// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.onnx;

import static org.assertj.core.api.Assertions.assertThat;

import ai.onnx.proto.OnnxMl.AttributeProto;
import ai.onnx.proto.OnnxMl.AttributeProto.AttributeType;
import ai.onnx.proto.OnnxMl.FunctionProto;
import ai.onnx.proto.OnnxMl.GraphProto;
import ai.onnx.proto.OnnxMl.ModelProto;
import ai.onnx.proto.OnnxMl.NodeProto;
import ai.onnx.proto.OnnxMl.OperatorSetIdProto;
import ai.onnx.proto.OnnxMl.SparseTensorProto;
import ai.onnx.proto.OnnxMl.StringStringEntryProto;
import ai.onnx.proto.OnnxMl.TensorAnnotation;
import ai.onnx.proto.OnnxMl.TensorProto;
import ai.onnx.proto.OnnxMl.TensorShapeProto;
import ai.onnx.proto.OnnxMl.TypeProto;
import ai.onnx.proto.OnnxMl.ValueInfoProto;
import com.google.protobuf.ByteString;
import com.google.protobuf.UnknownFieldSet;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Tensor;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Everything that is not interpreted is written as it was read. */
class CarriedThroughTest {
    @TempDir
    private Path folder;

    @Test
    void operatorsOfUnknownDomains() throws IOException {
        ModelProto.Builder model = Protos.model(
                Protos.graph().addNode(Protos.node("Frobnicate", "y", "z").setDomain("org.example")));
        model.addOpsetImport(
                OperatorSetIdProto.newBuilder().setDomain("org.example").setVersion(7));

        assertUnchanged(model);
    }

    @Test
    void functions() throws IOException {
        assertUnchanged(Protos.model(Protos.graph())
                .addFunctions(FunctionProto.newBuilder()
                        .setName("Twice")
                        .setDomain("org.example")
                        .addInput("a")
                        .addOutput("b")
                        .addAttribute("alpha")
                        .addNode(Protos.node("Add", "a", "b").addInput("a"))));
    }

    @Test
    void metadataAndDocumentation() throws IOException {
        StringStringEntryProto entry = StringStringEntryProto.newBuilder()
                .setKey("author")
                .setValue("an \u00fcmlaut")
                .build();
        assertUnchanged(Protos.model(Protos.graph()
                        .setDocString("graph")
                        .addMetadataProps(entry)
                        .setNode(
                                0,
                                Protos.node("Relu", "x", "y")
                                        .setDocString("node")
                                        .addMetadataProps(entry))
                        .setInput(0, Protos.floats("x", 4).setDocString("input").addMetadataProps(entry))
                        .addValueInfo(Protos.floats("y", 4).setDocString("value")))
                .setProducerName("somebody")
                .setProducerVersion("1.2")
                .setDomain("org.example")
                .setModelVersion(3)
                .setDocString("model")
                .addMetadataProps(entry));
    }

    @Test
    void documentationAndMetadataOfTensors() throws IOException {
        TensorProto.Builder tensor = TensorProto.newBuilder()
                .setName("w")
                .setDataType(TensorProto.DataType.FLOAT_VALUE)
                .addDims(1)
                .setRawData(ByteString.copyFrom(new byte[4]))
                .setDocString("weight")
                .addMetadataProps(
                        StringStringEntryProto.newBuilder().setKey("k").setValue("v"));

        assertUnchanged(Protos.model(Protos.graph()
                .addInitializer(tensor)
                .addNode(Protos.node("Constant", "unused", "c")
                        .clearInput()
                        .addAttribute(AttributeProto.newBuilder()
                                .setName("value")
                                .setType(AttributeProto.AttributeType.TENSOR)
                                .setT(tensor)))));
    }

    @Test
    void quantisationAnnotations() throws IOException {
        assertUnchanged(Protos.model(Protos.graph()
                .addQuantizationAnnotation(TensorAnnotation.newBuilder().setTensorName("x"))));
    }

    @Test
    void fieldsOfANewerFormat() throws IOException {
        UnknownFieldSet unknown = UnknownFieldSet.newBuilder()
                .addField(900, UnknownFieldSet.Field.newBuilder().addVarint(42).build())
                .build();
        assertUnchanged(Protos.model(Protos.graph()
                        .setUnknownFields(unknown)
                        .setNode(0, Protos.node("Relu", "x", "y").setUnknownFields(unknown))
                        .setInput(0, Protos.floats("x", 4).setUnknownFields(unknown)))
                .setUnknownFields(unknown));
    }

    @Test
    void everyKindOfAttribute() throws IOException {
        TensorProto tensor = number(5).build();
        NodeProto.Builder node = Protos.node("Everything", "x", "z").setDomain("org.example");
        node.addAttribute(attribute("int", AttributeType.INT).setI(-3));
        node.addAttribute(
                attribute("ints", AttributeType.INTS).addInts(1).addInts(-2).addInts(Long.MAX_VALUE));
        node.addAttribute(attribute("no_ints", AttributeType.INTS));
        node.addAttribute(attribute("float", AttributeType.FLOAT).setF(-0.0f));
        node.addAttribute(
                attribute("floats", AttributeType.FLOATS).addFloats(1.5f).addFloats(Float.NaN));
        node.addAttribute(attribute("string", AttributeType.STRING).setS(ByteString.copyFromUtf8("\u00e9")));
        node.addAttribute(attribute("bytes", AttributeType.STRING).setS(ByteString.copyFrom(new byte[] {-1, -2, 0})));
        node.addAttribute(attribute("strings", AttributeType.STRINGS).addStrings(ByteString.copyFromUtf8("a")));
        node.addAttribute(attribute("tensor", AttributeType.TENSOR).setT(tensor));
        node.addAttribute(attribute("tensors", AttributeType.TENSORS).addTensors(tensor));
        node.addAttribute(attribute("graph", AttributeType.GRAPH).setG(body()));
        node.addAttribute(attribute("graphs", AttributeType.GRAPHS).addGraphs(body()));
        node.addAttribute(attribute("sparse", AttributeType.SPARSE_TENSOR).setSparseTensor(sparse("t")));
        node.addAttribute(attribute("type", AttributeType.TYPE_PROTO)
                .setTp(Protos.floats("unused", 3).getType()));
        node.addAttribute(attribute("reference", AttributeType.INT).setRefAttrName("outer"));

        assertUnchanged(Protos.model(Protos.graph().addNode(node)));
    }

    @Test
    void declaredTypesOfEveryKind() throws IOException {
        TypeProto floats = Protos.floats("unused", 3).getType();
        TypeProto.Tensor.Builder symbolic = TypeProto.Tensor.newBuilder()
                .setElemType(TensorProto.DataType.FLOAT16_VALUE)
                .setShape(TensorShapeProto.newBuilder()
                        .addDim(TensorShapeProto.Dimension.newBuilder()
                                .setDimParam("batch")
                                .setDenotation("DATA_BATCH"))
                        .addDim(TensorShapeProto.Dimension.newBuilder())
                        .addDim(TensorShapeProto.Dimension.newBuilder().setDimValue(0)));
        GraphProto.Builder graph = Protos.graph();
        graph.addInput(typed("symbolic", TypeProto.newBuilder().setTensorType(symbolic)));
        graph.addInput(typed(
                "unranked",
                TypeProto.newBuilder()
                        .setTensorType(TypeProto.Tensor.newBuilder().setElemType(1))));
        graph.addInput(typed(
                "scalar",
                TypeProto.newBuilder()
                        .setTensorType(
                                TypeProto.Tensor.newBuilder().setElemType(1).setShape(TensorShapeProto.newBuilder()))));
        graph.addInput(typed(
                "sequence",
                TypeProto.newBuilder()
                        .setSequenceType(TypeProto.Sequence.newBuilder().setElemType(floats))));
        graph.addInput(typed(
                "map",
                TypeProto.newBuilder()
                        .setMapType(TypeProto.Map.newBuilder().setKeyType(7).setValueType(floats))));
        graph.addInput(typed(
                "optional",
                TypeProto.newBuilder()
                        .setOptionalType(TypeProto.Optional.newBuilder().setElemType(floats))));
        graph.addInput(ValueInfoProto.newBuilder().setName("untyped"));

        assertUnchanged(Protos.model(graph));
    }

    @Test
    void tensorsWithoutNumbers() throws IOException {
        TensorProto words = TensorProto.newBuilder()
                .setName("words")
                .setDataType(TensorProto.DataType.STRING_VALUE)
                .addDims(2)
                .addStringData(ByteString.copyFromUtf8("left"))
                .addStringData(ByteString.copyFrom(new byte[] {-1}))
                .build();
        TensorProto later = TensorProto.newBuilder()
                .setName("later")
                .setDataType(99)
                .addDims(1)
                .setRawData(ByteString.copyFrom(new byte[] {1, 2, 3}))
                .build();
        ModelProto.Builder model =
                Protos.model(Protos.graph().addInitializer(words).addInitializer(later));

        assertUnchanged(model);
        Tensor read = read(model).graph().initializers().get("words");
        assertThat(read.bytes()).isNull();
        assertThat(read.opaque()).isNotEmpty();
    }

    @Test
    void theDefaultDomainHasOneName() throws IOException {
        ModelProto.Builder model = Protos.model(
                Protos.graph().setNode(0, Protos.node("Relu", "x", "y").setDomain("ai.onnx")));
        model.setOpsetImport(
                0, OperatorSetIdProto.newBuilder().setDomain("ai.onnx").setVersion(21));
        Model read = read(model);

        assertThat(read.opset()).isEqualTo(21);
        assertThat(read.graph().nodes().get(0).domain()).isEmpty();
    }

    @Test
    void attributesThatRulesReadAreUnderstood() throws IOException {
        NodeProto.Builder node = Protos.node("Everything", "x", "z").setDomain("org.example");
        node.addAttribute(attribute("i", AttributeType.INT).setI(4));
        node.addAttribute(attribute("f", AttributeType.FLOAT).setF(0.5f));
        node.addAttribute(attribute("s", AttributeType.STRING).setS(ByteString.copyFromUtf8("NHD")));
        node.addAttribute(attribute("l", AttributeType.INTS).addInts(2).addInts(3));
        node.addAttribute(attribute("g", AttributeType.GRAPH).setG(body()));
        var read =
                read(Protos.model(Protos.graph().addNode(node))).graph().nodes().get(1);

        assertThat(read.intAttribute("i", 0)).isEqualTo(4);
        assertThat(read.floatAttribute("f", 0)).isEqualTo(0.5f);
        assertThat(read.textAttribute("s", "")).isEqualTo("NHD");
        assertThat(read.intsAttribute("l")).containsExactly(2L, 3L);
        assertThat(read.attributes().get("g")).isInstanceOf(Attribute.Body.class);
        assertThat(read.label()).isEqualTo("\"make_z\" (org.example.Everything)");
    }

    private Model read(ModelProto.Builder model) throws IOException {
        return ModelReader.read(Protos.write(folder, model));
    }

    private void assertUnchanged(ModelProto.Builder model) throws IOException {
        Path written = folder.resolve("out.onnx");
        ModelWriter.write(read(model), written, false);

        assertThat(ModelProto.parseFrom(Files.readAllBytes(written))).isEqualTo(model.build());
    }

    private static AttributeProto.Builder attribute(String name, AttributeType type) {
        return AttributeProto.newBuilder().setName(name).setType(type);
    }

    private static ValueInfoProto typed(String name, TypeProto.Builder type) {
        return ValueInfoProto.newBuilder().setName(name).setType(type).build();
    }

    private static TensorProto.Builder number(int value) {
        return TensorProto.newBuilder()
                .setDataType(TensorProto.DataType.INT8_VALUE)
                .addDims(1)
                .setRawData(ByteString.copyFrom(new byte[] {(byte) value}));
    }

    private static SparseTensorProto sparse(String name) {
        return SparseTensorProto.newBuilder()
                .setValues(number(1).setName(name))
                .setIndices(TensorProto.newBuilder()
                        .setDataType(TensorProto.DataType.INT64_VALUE)
                        .addDims(1)
                        .addInt64Data(2))
                .addDims(4)
                .build();
    }

    private static GraphProto body() {
        return GraphProto.newBuilder()
                .setName("body")
                .addNode(Protos.node("Neg", "x", "inner"))
                .addOutput(Protos.floats("inner", 4))
                .build();
    }
}
