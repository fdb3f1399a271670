// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.onnx;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import ai.onnx.proto.OnnxMl.AttributeProto;
import ai.onnx.proto.OnnxMl.FunctionProto;
import ai.onnx.proto.OnnxMl.GraphProto;
import ai.onnx.proto.OnnxMl.ModelProto;
import ai.onnx.proto.OnnxMl.NodeProto;
import ai.onnx.proto.OnnxMl.OperatorSetIdProto;
import ai.onnx.proto.OnnxMl.TensorProto;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Model;
import java.io.IOException;
import java.nio.file.Path;
import java.util.Arrays;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Models that unfold without an end, or to more than a runtime can take, are refused when they are read. */
class ModelLimitsTest {
    private static final String DOMAIN = "local";

    @TempDir
    private Path folder;

    private final ModelProto.Builder model = Protos.model(Protos.graph());

    private void function(String name, int opset, String... calls) {
        FunctionProto.Builder function = FunctionProto.newBuilder()
                .setDomain(DOMAIN)
                .setName(name)
                .addInput("v0")
                .addOutput("v" + calls.length)
                .addOpsetImport(OperatorSetIdProto.newBuilder().setVersion(opset));
        for (int i = 0; i < calls.length; i++) {
            function.addNode(node(calls[i], "v" + i, "v" + (i + 1)));
        }
        model.addFunctions(function);
    }

    private static NodeProto.Builder node(String op, String input, String output) {
        NodeProto.Builder node = Protos.node(op, input, output);
        return op.startsWith("F") ? node.setDomain(DOMAIN) : node;
    }

    /** A chain of functions of which each calls the next one {@code width} times. */
    private void chain(int depth, int width, int opset) {
        for (int i = 0; i < depth; i++) {
            String[] calls = new String[width];
            Arrays.fill(calls, i + 1 < depth ? "F" + (i + 1) : "Relu");
            function("F" + i, opset, calls);
        }
        model.getGraphBuilder().setNode(0, node("F0", "x", "y"));
    }

    private void refused(String... parts) throws IOException {
        Path file = Protos.write(folder, model);
        assertThatThrownBy(() -> ModelReader.read(file))
                .isInstanceOf(UserException.class)
                .hasMessageContainingAll(parts)
                .hasMessageContaining("in.onnx");
    }

    /** With another version than the model's, functions are left to ONNX Runtime, which descends without an end. */
    @ParameterizedTest
    @ValueSource(ints = {17, 21})
    void aFunctionThatCallsItself(int opset) throws IOException {
        function("F0", opset, "Relu", "F0");

        refused("the function \"local.F0\"", "calls itself");
    }

    @ParameterizedTest
    @ValueSource(ints = {17, 21})
    void functionsThatCallEachOther(int opset) throws IOException {
        function("F0", opset, "F1");
        function("F1", opset, "F2");
        function("F2", opset, "F0");
        model.getGraphBuilder().setNode(0, node("F0", "x", "y"));

        refused("\"local.F0\"", "calls itself, through \"local.F2\"");
    }

    @Test
    void aCircleThroughASubgraph() throws IOException {
        function("F0", 21, "Relu");
        NodeProto.Builder choice = Protos.node("If", "v0", "z")
                .addAttribute(AttributeProto.newBuilder()
                        .setName("then_branch")
                        .setType(AttributeProto.AttributeType.GRAPH)
                        .setG(GraphProto.newBuilder().addNode(node("F0", "v0", "w"))));
        model.getFunctionsBuilder(0).addNode(choice);

        refused("calls itself");
    }

    @ParameterizedTest
    @ValueSource(ints = {17, 21})
    void fiveThousandNestedFunctions(int opset) throws IOException {
        chain(5000, 1, opset);

        refused("call each other more than 100 deep");
    }

    @ParameterizedTest
    @ValueSource(ints = {17, 21})
    void functionsThatUnfoldToMillionsOfNodes(int opset) throws IOException {
        chain(28, 2, opset);

        refused("more than 40,000 nodes when its functions are inlined");
    }

    @Test
    void manyNodesThatAreInTheFile() throws IOException {
        chain(2, 1, 21);
        model.getGraphBuilder().clearNode();
        for (int i = 0; i < 50_000; i++) {
            model.getGraphBuilder().addNode(node("Relu", i == 0 ? "x" : "n" + i, i == 49_999 ? "y" : "n" + (i + 1)));
        }

        assertThat(ModelReader.read(Protos.write(folder, model)).graph().nodes())
                .hasSize(50_000);
    }

    @Test
    void usualDepthsAreInlined() throws IOException {
        chain(12, 2, 21);

        Model inlined = FunctionInliner.inline(ModelReader.read(Protos.write(folder, model)));

        assertThat(inlined.graph().nodes()).hasSize(1 << 12).allMatch(node -> node.is("Relu"));
    }

    /** The parser ends first where they are deeper still. */
    @ParameterizedTest
    @CsvSource({"31, nests subgraphs more than 30 deep", "300, too many levels of nesting"})
    void subgraphsInSubgraphs(int depth, String message) throws IOException {
        GraphProto.Builder inner = GraphProto.newBuilder().addNode(node("Relu", "x", "y"));
        for (int i = 0; i < depth; i++) {
            inner = GraphProto.newBuilder()
                    .addNode(Protos.node("If", "x", "y")
                            .addAttribute(AttributeProto.newBuilder()
                                    .setName("then_branch")
                                    .setType(AttributeProto.AttributeType.GRAPH)
                                    .setG(inner)));
        }
        model.getGraphBuilder().addNode(inner.getNode(0));

        refused(message);
    }

    @Test
    void aFunctionThatIsDefinedTwice() throws IOException {
        function("F0", 21, "Relu");
        function("F0", 21, "Relu");

        refused("defines the function \"local.F0\" twice");
    }

    @ParameterizedTest
    @ValueSource(longs = {-1, Long.MIN_VALUE, Long.MAX_VALUE, 1L << 62})
    void impossibleShapes(long extent) throws IOException {
        model.getGraphBuilder()
                .addInitializer(TensorProto.newBuilder()
                        .setName("w")
                        .setDataType(TensorProto.DataType.FLOAT_VALUE)
                        .addDims(4)
                        .addDims(extent));

        refused("initializer \"w\"", "shape [4, " + extent + "]");
    }

    /** The shape claims 2 GiB; nothing is allocated for it. */
    @Test
    void aLargeShapeWithoutValues() throws IOException {
        model.getGraphBuilder()
                .addInitializer(TensorProto.newBuilder()
                        .setName("w")
                        .setDataType(TensorProto.DataType.FLOAT_VALUE)
                        .addDims(1L << 40)
                        .addFloatData(1));

        refused("holds 4 bytes where its shape needs");
    }
}
