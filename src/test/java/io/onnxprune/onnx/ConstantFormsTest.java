// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.onnx;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import ai.onnx.proto.OnnxMl.AttributeProto;
import ai.onnx.proto.OnnxMl.AttributeProto.AttributeType;
import ai.onnx.proto.OnnxMl.FunctionProto;
import ai.onnx.proto.OnnxMl.GraphProto;
import ai.onnx.proto.OnnxMl.ModelProto;
import ai.onnx.proto.OnnxMl.NodeProto;
import ai.onnx.proto.OnnxMl.OperatorSetIdProto;
import ai.onnx.proto.OnnxMl.SparseTensorProto;
import ai.onnx.proto.OnnxMl.TensorProto;
import io.onnxprune.RecordedLog;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program;
import io.onnxprune.ir.Tensor;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** A constant is the same tensor in every form that ONNX has for it. */
class ConstantFormsTest {
    private static final float[] DENSE = {0, 0, 1, 0, 0, 2, 3, 0};

    @TempDir
    private Path folder;

    @Test
    void numbersInAttributesOfConstants() throws IOException {
        Model model = read(Protos.graph()
                .addNode(constant(
                        "a",
                        attribute("value_floats", AttributeType.FLOATS)
                                .addFloats(1.5f)
                                .addFloats(-2)))
                .addNode(constant(
                        "b", attribute("value_float", AttributeType.FLOAT).setF(3)))
                .addNode(constant(
                        "c", attribute("value_ints", AttributeType.INTS).addInts(4)))
                .addNode(constant("d", attribute("value_int", AttributeType.INT).setI(-1))));

        assertThat(constant(model, "a").toFloats()).containsExactly(1.5f, -2);
        assertThat(constant(model, "a").shape()).containsExactly(2);
        assertThat(constant(model, "b").toFloats()).containsExactly(3);
        assertThat(constant(model, "b").rank()).isZero();
        assertThat(constant(model, "c").toLongs()).containsExactly(4);
        assertThat(constant(model, "c").rank()).isEqualTo(1);
        assertThat(constant(model, "d").toLongs()).containsExactly(-1);
        assertThat(constant(model, "d").rank()).isZero();
    }

    /** A list of numbers that a call gives to a function has another name there. */
    @Test
    void numbersFromTheCallOfAFunction() throws IOException {
        FunctionProto.Builder function = FunctionProto.newBuilder()
                .setName("Shifted")
                .setDomain("local")
                .addInput("a")
                .addOutput("b")
                .addAttribute("shift")
                .addOpsetImport(OperatorSetIdProto.newBuilder().setVersion(21))
                .addNode(constant(
                        "c", attribute("value_floats", AttributeType.FLOATS).setRefAttrName("shift")))
                .addNode(Protos.node("Add", "a", "b").addInput("c"));
        ModelProto.Builder model = Protos.model(Protos.graph()
                        .clearNode()
                        .addNode(Protos.node("Shifted", "x", "y")
                                .setDomain("local")
                                .addAttribute(attribute("shift", AttributeType.FLOATS)
                                        .addAllFloats(List.of(1f, 2f, 3f, 4f)))))
                .addOpsetImport(
                        OperatorSetIdProto.newBuilder().setDomain("local").setVersion(1))
                .addFunctions(function);

        Model inlined = FunctionInliner.inline(ModelReader.read(Protos.write(folder, model)));

        assertThat(constant(inlined, "make_y/c").toFloats()).containsExactly(1, 2, 3, 4);
    }

    @Test
    void sparseTensors() throws IOException {
        RecordedLog log = new RecordedLog();
        Path file = Protos.write(
                folder,
                Protos.model(Protos.graph()
                        .addSparseInitializer(sparse("flat", List.of(2L, 5L, 6L), 3))
                        .addSparseInitializer(sparse("pairs", List.of(0L, 2L, 1L, 1L, 1L, 2L), 3, 2))
                        .addNode(constant(
                                "c",
                                attribute("sparse_value", AttributeType.SPARSE_TENSOR)
                                        .setSparseTensor(sparse("", List.of(2L, 5L, 6L), 3))))));
        Model model = ModelReader.read(file, log);

        assertThat(model.graph().initializers().get("flat").toFloats()).isEqualTo(DENSE);
        assertThat(model.graph().initializers().get("pairs").toFloats()).isEqualTo(DENSE);
        assertThat(constant(model, "c").toFloats()).isEqualTo(DENSE);
        assertThat(constant(model, "c").shape()).containsExactly(2, 4);
        assertThat(log.lines()).containsExactly("info: sparse tensors are read as dense ones with the same values: 3");

        Path written = folder.resolve("out.onnx");
        ModelWriter.write(model, written, false);
        Model again = ModelReader.read(written);
        assertThat(again.graph().initializers().get("pairs").toFloats()).isEqualTo(DENSE);
        assertThat(again.graph().initializers()).hasSize(2);
    }

    @Test
    void anyRangeOfASparseTensorCanBeRead() throws IOException {
        Model model = read(Protos.graph().addSparseInitializer(sparse("s", List.of(2L, 5L, 6L), 3)));
        byte[] all = model.graph().initializers().get("s").bytes().toArray();
        for (int from = 0; from < all.length; from++) {
            for (int to = from; to <= all.length; to++) {
                ByteBuffer part = ByteBuffer.allocate(to - from);
                model.graph().initializers().get("s").bytes().read(from, part);
                assertThat(part.array()).isEqualTo(Arrays.copyOfRange(all, from, to));
            }
        }
    }

    @ParameterizedTest
    @CsvSource({"2, 5, 8", "2, 2, 6", "-1, 5, 6", "5, 2, 6"})
    void indicesOutsideTheShapeOrOutOfOrderAreRefused(long first, long second, long third) {
        GraphProto.Builder graph = Protos.graph().addSparseInitializer(sparse("s", List.of(first, second, third), 3));

        assertThatThrownBy(() -> read(graph))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("initializer \"s\" of ")
                .hasMessageContaining("which is outside its shape or not in ascending order; export it again");
    }

    @Test
    void indicesThatDoNotBelongToTheValuesAreRefused() {
        GraphProto.Builder graph = Protos.graph().addSparseInitializer(sparse("s", List.of(1L, 2L), 2));

        assertThatThrownBy(() -> read(graph))
                .isInstanceOf(UserException.class)
                .hasMessageContaining(
                        "is sparse with values float[3] at indices int64[2], which do not belong together");
    }

    private Model read(GraphProto.Builder graph) throws IOException {
        return ModelReader.read(Protos.write(folder, Protos.model(graph)));
    }

    private static Tensor constant(Model model, String name) {
        return Program.of(model).ops().stream()
                .filter(op -> op.output(0).name().equals(name))
                .findFirst()
                .orElseThrow()
                .output(0)
                .constant();
    }

    private static NodeProto.Builder constant(String name, AttributeProto.Builder attribute) {
        return NodeProto.newBuilder().setOpType("Constant").addOutput(name).addAttribute(attribute);
    }

    private static AttributeProto.Builder attribute(String name, AttributeType type) {
        return AttributeProto.newBuilder().setName(name).setType(type);
    }

    /** 1, 2 and 3 at some places of a tensor of shape [2, 4]. */
    private static SparseTensorProto sparse(String name, List<Long> indices, long... shape) {
        TensorProto.Builder places = TensorProto.newBuilder()
                .setDataType(TensorProto.DataType.INT64_VALUE)
                .addAllInt64Data(indices);
        Arrays.stream(shape).forEach(places::addDims);
        return SparseTensorProto.newBuilder()
                .setValues(TensorProto.newBuilder()
                        .setName(name)
                        .setDataType(TensorProto.DataType.FLOAT_VALUE)
                        .addDims(3)
                        .addAllFloatData(List.of(1f, 2f, 3f)))
                .setIndices(places)
                .addDims(2)
                .addDims(4)
                .build();
    }
}
