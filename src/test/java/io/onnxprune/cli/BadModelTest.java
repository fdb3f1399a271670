// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;

import ai.onnx.proto.OnnxMl.AttributeProto;
import ai.onnx.proto.OnnxMl.GraphProto;
import ai.onnx.proto.OnnxMl.ModelProto;
import ai.onnx.proto.OnnxMl.NodeProto;
import ai.onnx.proto.OnnxMl.OperatorSetIdProto;
import ai.onnx.proto.OnnxMl.StringStringEntryProto;
import ai.onnx.proto.OnnxMl.TensorProto;
import com.google.protobuf.ByteString;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Map;
import java.util.function.Consumer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Models that cannot be pruned give one sentence with the reason, leave the input unchanged and write no output. */
@Tag("ort")
class BadModelTest {
    @TempDir
    private Path root;

    private Path folder;
    private Path model;
    private Path out;
    private Map<String, Integer> before;

    @BeforeEach
    void copyModel() throws IOException {
        folder = root.resolve("in");
        out = Files.createDirectory(root.resolve("out"));
        model = folder.resolve("model.onnx");
    }

    @AfterEach
    void nothingChanged() throws IOException {
        assertThat(Cli.contents(folder)).isEqualTo(before);
        assertThat(out).isEmptyDirectory();
    }

    private void use(String name) throws IOException {
        Cli.copy(Path.of("testmodels", name), folder);
    }

    private void change(Consumer<ModelProto.Builder> edit) throws IOException {
        ModelProto.Builder proto = ModelProto.parseFrom(Files.readAllBytes(model)).toBuilder();
        edit.accept(proto);
        Files.write(model, proto.build().toByteArray());
    }

    private Cli.Run prune(Object... more) throws IOException {
        before = Cli.contents(folder);
        Object[] arguments = Arrays.copyOf(new Object[] {model, "-o", out.resolve("small.onnx")}, 3 + more.length);
        System.arraycopy(more, 0, arguments, 3, more.length);
        return Cli.run(arguments);
    }

    @Test
    void notProtobuf() throws IOException {
        Files.createDirectory(folder);
        Files.writeString(model, "this is a text\n".repeat(100));

        prune().failed(1, "model.onnx is not an ONNX model", "give the .onnx file that an exporter wrote");
    }

    @Test
    void protobufOfAnotherKind() throws IOException {
        Files.createDirectory(folder);
        Files.write(model, ModelProto.newBuilder().setProducerName("x").build().toByteArray());

        prune().failed(1, "model.onnx is not an ONNX model", "no graph");
    }

    @Test
    void empty() throws IOException {
        Files.createDirectory(folder);
        Files.createFile(model);

        prune().failed(1, "model.onnx is empty");
    }

    @ParameterizedTest
    @ValueSource(doubles = {0.001, 0.3, 0.5, 0.9, 0.9999})
    void truncated(double share) throws IOException {
        use("llama-gqa-d");
        byte[] whole = Files.readAllBytes(model);
        Files.write(model, Arrays.copyOf(whole, (int) (share * whole.length)));

        prune().failed(1, "model.onnx is not an ONNX model, or is cut off or damaged");
    }

    @Test
    void externalDataMissing() throws IOException {
        use("llama-g16-e-fp32");
        Files.delete(folder.resolve("model.onnx.data"));

        prune().failed(1, "the external data file", "model.onnx.data", "is missing", "put it back");
    }

    @Test
    void externalDataShort() throws IOException {
        use("llama-g16-e-fp32");
        Path data = folder.resolve("model.onnx.data");
        Files.write(data, Arrays.copyOf(Files.readAllBytes(data), 1000));

        prune().failed(1, "model.onnx.data is too short (1000 bytes)", "initializer", "download it again");
    }

    @ParameterizedTest
    @ValueSource(strings = {"../secret", "/etc/passwd", "a/../../secret", "", "nul\0"})
    void externalDataOutsideItsFolder(String location) throws IOException {
        use("llama-g16-e-fp32");
        Files.write(root.resolve("secret"), new byte[1 << 20]);
        change(proto -> firstExternal(
                proto,
                tensor -> tensor.clearExternalData()
                        .addExternalData(StringStringEntryProto.newBuilder()
                                .setKey("location")
                                .setValue(location))));

        prune().failed(1, "initializer", "keeps its data in", "not inside the model's folder");
        assertThat(root.resolve("secret")).hasSize(1 << 20);
    }

    @ParameterizedTest
    @ValueSource(strings = {"-4", "99999999999", "many"})
    void externalDataAtABadPlace(String offset) throws IOException {
        use("llama-g16-e-fp32");
        change(proto -> firstExternal(
                proto,
                tensor -> tensor.clearExternalData()
                        .addExternalData(StringStringEntryProto.newBuilder()
                                .setKey("location")
                                .setValue("model.onnx.data"))
                        .addExternalData(StringStringEntryProto.newBuilder()
                                .setKey("offset")
                                .setValue(offset))));

        prune().failed(1, "initializer", offset);
    }

    private static void firstExternal(ModelProto.Builder proto, Consumer<TensorProto.Builder> edit) {
        edit.accept(proto.getGraphBuilder().getInitializerBuilderList().stream()
                .filter(tensor -> tensor.getDataLocation() == TensorProto.DataLocation.EXTERNAL)
                .findFirst()
                .orElseThrow());
    }

    @ParameterizedTest
    @ValueSource(floats = {Float.NaN, Float.POSITIVE_INFINITY, Float.NEGATIVE_INFINITY})
    void weightsThatAreNotFinite(float value) throws IOException {
        use("llama-gqa-d");
        String name = spoil(value);

        prune("--method", "magnitude", "--prune", "hidden")
                .failed(1, "initializer \"" + name + '"', "holds " + value, "repair the weights");
    }

    @Test
    void weightsThatAreNotFiniteWithoutScores() throws IOException {
        use("llama-gqa-d");
        spoil(Float.NaN);

        prune("--method", "random", "--prune", "ffn").failed(1, "not finite numbers");
    }

    /** Sets an element of the last weight matrix, that of the output layer. */
    private String spoil(float value) throws IOException {
        String[] name = new String[1];
        change(proto -> {
            TensorProto.Builder matrix = proto.getGraphBuilder().getInitializerBuilderList().stream()
                    .filter(tensor -> tensor.getDimsCount() == 2
                            && tensor.getDataType() == 1
                            && tensor.getDims(0) != tensor.getDims(1)
                            && tensor.getName().contains("MatMul"))
                    .reduce((first, second) -> second)
                    .orElseThrow();
            ByteBuffer bytes =
                    ByteBuffer.wrap(matrix.getRawData().toByteArray()).order(ByteOrder.LITTLE_ENDIAN);
            bytes.putFloat(8, value);
            matrix.setRawData(ByteString.copyFrom(bytes.array()));
            name[0] = matrix.getName();
        });
        return name[0];
    }

    @Test
    void anOperatorWithoutDerivative() throws IOException {
        use("llama-gqa-d");
        change(proto -> proto.getGraphBuilder().getNodeBuilderList().stream()
                .filter(node -> node.getOpType().equals("Sigmoid"))
                .forEach(node -> node.setOpType("Atan")));

        prune("--method", "magnitude", "--correct", "1", "--calibration", Cli.tokens(root))
                .failed(
                        1,
                        "no gradient can be computed through node \"",
                        "(Atan): the operator has no derivative; prune with --correct 0");
        prune("--method", "llm-pruner", "--calibration", Cli.tokens(root))
                .failed(1, "(Atan): the operator has no derivative; choose a method that needs no gradients");
    }

    @Test
    void noSuchStructure() throws IOException {
        use("llama-gqa-d");

        prune("--prune", "experts").failed(1, "there are no experts to prune in this model; it has", "heads, ", "ffn");
    }

    @Test
    void everythingOfAStructurePinned() throws IOException {
        use("llama-g16-e-int4");

        prune("--prune", "query_heads")
                .failed(
                        1,
                        "no query_heads can be pruned",
                        "quantisation block",
                        "at node \"",
                        "(com.microsoft.MatMulNBits)");
    }

    @Test
    void operatorWithoutARule() throws IOException {
        use("llama-gqa-d");
        change(proto -> onChannels(
                proto,
                NodeProto.newBuilder()
                        .setOpType("MeanVarianceNormalization")
                        .addAttribute(AttributeProto.newBuilder()
                                .setName("axes")
                                .setType(AttributeProto.AttributeType.INTS)
                                .addInts(2))));

        prune("--prune", "ffn")
                .failed(
                        1,
                        "no ffn can be pruned",
                        "at node \"odd-",
                        "MeanVarianceNormalization",
                        "prune something else");
    }

    @Test
    void operatorThatTheRuntimeDoesNotKnow() throws IOException {
        use("llama-gqa-d");
        change(proto -> {
            proto.addOpsetImport(
                    OperatorSetIdProto.newBuilder().setDomain("my.own").setVersion(1));
            onChannels(proto, NodeProto.newBuilder().setOpType("Frobnicate").setDomain("my.own"));
        });

        prune().failed(1, "ONNX Runtime", "Frobnicate");
    }

    @Test
    void typesThatDoNotFit() throws IOException {
        use("llama-gqa-d");
        change(proto -> onChannels(
                proto,
                NodeProto.newBuilder()
                        .setOpType("Cast")
                        .addAttribute(AttributeProto.newBuilder()
                                .setName("to")
                                .setType(AttributeProto.AttributeType.INT)
                                .setI(7))));

        prune().failed(1, "ONNX Runtime", "Type");
    }

    @Test
    void inputThatNoNodeComputes() throws IOException {
        use("llama-gqa-d");
        change(proto -> proto.getGraphBuilder()
                .getNodeBuilder(proto.getGraph().getNodeCount() - 1)
                .setInput(0, "nowhere"));

        prune().failed(1, "nowhere");
    }

    @Test
    void aModelWithoutParameters() throws IOException {
        Files.createDirectory(folder);
        Files.write(
                model,
                ModelProto.newBuilder()
                        .setIrVersion(8)
                        .addOpsetImport(OperatorSetIdProto.newBuilder().setVersion(17))
                        .setGraph(GraphProto.newBuilder()
                                .addNode(NodeProto.newBuilder()
                                        .setOpType("RandomNormal")
                                        .addOutput("y")
                                        .addAttribute(AttributeProto.newBuilder()
                                                .setName("shape")
                                                .setType(AttributeProto.AttributeType.INTS)
                                                .addInts(2))))
                        .build()
                        .toByteArray());

        prune().failed(1, "has no parameters");
    }

    /** Inserts a node after the activation of each feed-forward block. */
    private static void onChannels(ModelProto.Builder proto, NodeProto.Builder kind) {
        GraphProto.Builder graph = proto.getGraphBuilder();
        for (int i = graph.getNodeCount() - 1; i >= 0; i--) {
            NodeProto.Builder node = graph.getNodeBuilder(i);
            if (node.getOpType().equals("Sigmoid")) {
                String result = node.getOutput(0);
                node.setOutput(0, result + "-odd");
                graph.addNode(
                        i + 1,
                        kind.clone()
                                .setName("odd-" + i)
                                .addInput(result + "-odd")
                                .addOutput(result));
            }
        }
    }
}
