// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import ai.onnx.proto.OnnxMl.FunctionProto;
import ai.onnx.proto.OnnxMl.GraphProto;
import ai.onnx.proto.OnnxMl.ModelProto;
import ai.onnx.proto.OnnxMl.NodeProto;
import ai.onnx.proto.OnnxMl.OperatorSetIdProto;
import ai.onnx.proto.OnnxMl.StringStringEntryProto;
import ai.onnx.proto.OnnxMl.TensorProto;
import ai.onnx.proto.OnnxMl.TensorShapeProto;
import ai.onnx.proto.OnnxMl.TypeProto;
import ai.onnx.proto.OnnxMl.ValueInfoProto;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession.SessionOptions;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.GraphParser;
import io.onnxprune.ir.Model;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.onnx.ModelWriter;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("ort")
class OnnxRuntimeTest {
    private static final OnnxRuntime RUNTIME = OnnxRuntime.open(RuntimeOptions.cpu());
    private static final Path MODELS = Path.of("testmodels");

    @Test
    void theNativeLibraryCanTrain() {
        assertThat(RUNTIME.version()).isNotBlank();
        assertThat(RUNTIME.trainingEnabled()).isTrue();
    }

    @ParameterizedTest
    @EnumSource(
            value = DType.class,
            names = {"FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "INT8", "UINT8", "INT16", "INT32", "INT64", "BOOL"})
    void suppliedInitializersOfEveryTypeAreUsedInPlace(DType dtype) {
        for (boolean optimize : new boolean[] {true, false}) {
            HostTensor weight = HostTensor.zeros(dtype, new long[] {300});
            ByteBuffer bytes = weight.bytes();
            int width = dtype.bits() / 8;
            bytes.put(299 * width, (byte) 1);
            byte[] model = gather(dtype, 300).toByteArray();
            Map<String, HostTensor> feed = Map.of("i", HostTensor.ofInt64(new long[] {1}, 299));
            try (Session session = RUNTIME.open(model, Map.of("w", weight), optimize)) {
                assertThat(firstByte(session, feed)).isEqualTo((byte) 1);
                bytes.put(299 * width, (byte) 0);
                assertThat(firstByte(session, feed)).isEqualTo((byte) 0);
            }
        }
    }

    private static byte firstByte(Session session, Map<String, HostTensor> feed) {
        try (Outputs outputs = session.run(feed, List.of("o"))) {
            return outputs.tensor("o").bytes().get(0);
        }
    }

    @Test
    void weightsThatAreNotAlignedAreAccepted() {
        ByteBuffer odd = ByteBuffer.allocateDirect(4 * 300 + 1).position(1).slice();
        odd.order(java.nio.ByteOrder.LITTLE_ENDIAN).putFloat(4 * 7, 2.5f);
        HostTensor weight = new HostTensor(DType.FLOAT, new long[] {300}, odd);
        try (Session session = RUNTIME.open(gather(DType.FLOAT, 300).toByteArray(), Map.of("w", weight), true);
                Outputs outputs = session.run(Map.of("i", HostTensor.ofInt64(new long[] {1}, 7)), List.of("o"))) {
            assertThat(outputs.tensor("o").toFloats()).containsExactly(2.5f);
        }
    }

    @ParameterizedTest
    @ValueSource(booleans = {true, false})
    void weightsOfARealModelCanBeSuppliedFromAMappedFile(boolean optimize, @TempDir Path folder) throws IOException {
        Path file = MODELS.resolve("stories-llama/model.onnx");
        ModelProto.Builder model = ModelProto.parseFrom(Files.readAllBytes(file)).toBuilder();
        Map<String, HostTensor> weights = moveWeights(model.getGraphBuilder(), folder.resolve("weights"));
        assertThat(weights).hasSizeGreaterThan(20);
        Map<String, HostTensor> feeds = new HashMap<>();
        try (Session fromFile = RUNTIME.open(file, optimize);
                Session parts = RUNTIME.open(model.build().toByteArray(), weights, optimize)) {
            for (Session.Io input : fromFile.inputs()) {
                feeds.put(input.name(), feed(input));
            }
            String logits = fromFile.outputs().get(0).name();
            try (Outputs expected = fromFile.run(feeds, List.of(logits));
                    Outputs found = parts.run(feeds, List.of(logits))) {
                assertThat(found.shape(logits)).containsExactly(expected.shape(logits));
                float[] difference = found.tensor(logits).toFloats();
                float[] wanted = expected.tensor(logits).toFloats();
                for (int i = 0; i < wanted.length; i++) {
                    difference[i] -= wanted[i];
                }
                assertThat(difference).usingComparatorWithPrecision(1e-4f).containsOnly(0f);
            }
        }
    }

    /** Three tokens and an empty cache for a decoder's interface. */
    private static HostTensor feed(Session.Io input) {
        long[] shape = input.shape().clone();
        boolean cache = shape.length == 4;
        for (int axis = 0; axis < shape.length; axis++) {
            if (shape[axis] < 0) {
                shape[axis] = axis == 0 ? 1 : cache ? 0 : 3;
            }
        }
        long[] values = {1, 1, 1};
        return cache ? HostTensor.zeros(input.dtype(), shape) : HostTensor.ofIntegers(input.dtype(), shape, values);
    }

    private static Map<String, HostTensor> moveWeights(GraphProto.Builder graph, Path file) throws IOException {
        Map<String, HostTensor> weights = new HashMap<>();
        try (FileChannel channel = FileChannel.open(
                file,
                java.nio.file.StandardOpenOption.CREATE,
                java.nio.file.StandardOpenOption.READ,
                java.nio.file.StandardOpenOption.WRITE)) {
            for (TensorProto.Builder tensor : graph.getInitializerBuilderList()) {
                ByteBuffer raw = tensor.getRawData().asReadOnlyByteBuffer();
                if (raw.remaining() < 1024) {
                    continue;
                }
                long offset = channel.size();
                channel.write(raw, offset);
                ByteBuffer mapped = channel.map(FileChannel.MapMode.READ_ONLY, offset, channel.size() - offset);
                long[] shape =
                        tensor.getDimsList().stream().mapToLong(Long::longValue).toArray();
                weights.put(tensor.getName(), new HostTensor(DType.of(tensor.getDataType()), shape, mapped));
                tensor.clearRawData()
                        .setDataLocation(TensorProto.DataLocation.EXTERNAL)
                        .addExternalData(nowhere());
            }
        }
        return weights;
    }

    @Test
    void outputsOfOneRunCanBeInputsOfTheNext() {
        byte[] model = model(
                        GraphProto.newBuilder()
                                .addInput(value("a", DType.FLOAT))
                                .addInput(value("b", DType.FLOAT))
                                .addOutput(value("c", DType.FLOAT)),
                        "Add",
                        List.of("a", "b"),
                        "c")
                .toByteArray();
        HostTensor one = HostTensor.ofFloat32(new long[] {2}, 1, 2);
        try (Session session = RUNTIME.open(model, Map.of(), true);
                Outputs first = session.run(Map.of("a", one, "b", one), List.of("c"));
                Outputs second = session.run(Map.of("a", one), first, Map.of("b", "c"), List.of("c"))) {
            assertThat(session.inputs()).extracting(Session.Io::name).containsExactly("a", "b");
            assertThat(session.outputs().get(0).dtype()).isEqualTo(DType.FLOAT);
            assertThat(session.outputs().get(0).shape()).containsExactly(-1);
            assertThat(session.outputs().get(0).dimNames()).containsExactly("n");
            assertThat(second.tensor("c").toFloats()).containsExactly(3, 6);
            assertThat(second.has("a")).isFalse();
        }
    }

    /** The messages are those of the library in use, so that a change of them is seen. */
    @ParameterizedTest
    @CsvSource(delimiter = '|', textBlock = """
            13 | 99 | Relu (x)                       | the model is of opset 99 of domain ai.onnx, and this runtime knows opsets up to
            99 | 20 | Relu (x)                       | the model is of IR version 99, and this runtime knows versions up to
            10 | 20 | Unheard (x)                    | this runtime has no operator Unheard of opset 20
            10 | 20 | com.microsoft.Unheard (x)      | this runtime has no operator Unheard of domain com.microsoft
            10 | 20 | Relu <unheard = 3> (x)         | this runtime does not know the attribute unheard of node "n" (Relu)
            10 | 20 | com.microsoft.QuickGelu (x, x) | node "n" (QuickGelu) has 2 inputs, and this runtime knows up to 1
            10 | 20 | Trilu (x)                      | this runtime has no kernel for node "n" (Trilu) on this provider and these types
            """)
    void whatTheLibraryLacksIsNamed(long irVersion, long opset, String node, String lacking) {
        String type = node.startsWith("Trilu") ? "uint16" : "float";
        Model model = GraphParser.parse("""
                ir_version %d
                opset "" %d
                opset "com.microsoft" 1
                main (%s[2,2] x) => (%s[2,2] y)
                {
                  y = %s  # n
                }
                """.formatted(irVersion, opset, type, type, node));
        assertThatThrownBy(() -> RUNTIME.open(model, false))
                .isInstanceOf(UserException.class)
                .hasMessageContaining(lacking)
                .hasMessageEndingWith("; give a newer or another ONNX Runtime library by --ort-library, or export the"
                        + " model in an older form");
    }

    /** ONNX Runtime inlines functions without a limit, and would end this process. */
    @Test
    void filesAreCheckedBeforeTheRuntimeReadsThem(@TempDir Path folder) throws IOException {
        NodeProto.Builder call = NodeProto.newBuilder()
                .setDomain("local")
                .setOpType("F")
                .addInput("i")
                .addOutput("o");
        ModelProto.Builder model = gather(DType.FLOAT, 300).toBuilder();
        model.addFunctions(FunctionProto.newBuilder()
                .setDomain("local")
                .setName("F")
                .addInput("i")
                .addOutput("o")
                .addNode(call)
                .addOpsetImport(OperatorSetIdProto.newBuilder().setVersion(17)));
        model.addOpsetImport(OperatorSetIdProto.newBuilder().setDomain("local").setVersion(1));
        model.getGraphBuilder().setNode(0, call).clearInitializer();
        Path file = Files.write(folder.resolve("circle.onnx"), model.build().toByteArray());

        assertThatThrownBy(() -> RUNTIME.open(file, true))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("the function \"local.F\" of " + file + " calls itself");
    }

    @Test
    void failuresAreOneLineWithTheirReason(@TempDir Path folder) throws IOException {
        Path broken = Files.writeString(folder.resolve("model.onnx"), "not a model");
        assertThatThrownBy(() -> RUNTIME.open(broken, true))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("model.onnx")
                .hasMessageContaining("is not an ONNX model")
                .hasMessageNotContaining("\n");
        assertThatThrownBy(() -> RUNTIME.open(folder.resolve("none.onnx"), true))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("does not exist");
        HostTensor weight = HostTensor.zeros(DType.FLOAT, new long[] {300});
        try (Session session = RUNTIME.open(gather(DType.FLOAT, 300).toByteArray(), Map.of("w", weight), true)) {
            assertThatThrownBy(() -> session.run(Map.of("i", HostTensor.ofFloat32(new long[] {1}, 1)), List.of("o")))
                    .isInstanceOf(UserException.class)
                    .hasMessageContaining("int64")
                    .hasMessageNotContaining("\n");
            assertThatThrownBy(() -> session.run(Map.of("i", HostTensor.ofInt64(new long[] {1}, 999)), List.of("o")))
                    .isInstanceOf(UserException.class)
                    .hasMessageContaining("999");
        }
        assertThatThrownBy(() -> RUNTIME.open(gather(DType.FLOAT, 300).toByteArray(), Map.of(), true))
                .isInstanceOf(UserException.class);
        HostTensor tooSmall = HostTensor.zeros(DType.FLOAT, new long[] {200});
        assertThatThrownBy(() -> RUNTIME.open(gather(DType.FLOAT, 300).toByteArray(), Map.of("w", tooSmall), true))
                .isInstanceOf(UserException.class)
                .hasMessageNotContaining("\n");
    }

    @Test
    void anotherLibraryInTheSameProcessIsRefused() {
        RuntimeOptions cuda = new RuntimeOptions(
                RuntimeOptions.Provider.CUDA, 0, 0, Optional.empty(), RuntimeOptions.Precision.FLOAT32);
        assertThatThrownBy(() -> OnnxRuntime.open(cuda))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("start a new process");
    }

    /** This is how a training session on CUDA keeps them. With one optimizer less, the process would crash. */
    @ParameterizedTest
    @EnumSource(
            value = DType.class,
            names = {"FLOAT16", "BFLOAT16"})
    void halfPrecisionWeightsCanBeCastAtEachUse(DType half, @TempDir Path folder) throws OrtException {
        Path written = folder.resolve("model.onnx");
        Path optimized = folder.resolve("optimized.onnx");
        Model model = GraphParser.parse("""
                ir_version 9
                opset "" 17
                main (float[rows,64] x) => (float[rows,64] y, float[rows,64] z)
                  <%s[64,64] w = random(1)>
                {
                  a = Cast <to = 1> (w)
                  y = MatMul (x, a)
                  b = Cast <to = 1> (w)
                  z = MatMul (y, b)
                }
                """.formatted(half.name().toLowerCase(Locale.ROOT)));
        ModelWriter.write(model, written, false);

        try (SessionOptions options = RUNTIME.sessionOptions(true)) {
            options.addConfigEntry("optimization.disable_specified_optimizers", OnnxRuntime.WIDENING_OPTIMIZERS);
            options.setOptimizedModelFilePath(optimized.toString());
            RUNTIME.environment().createSession(written.toString(), options).close();
        }

        Graph graph = ModelReader.read(optimized).graph();
        assertThat(graph.initializers().get("w").dtype()).isEqualTo(half);
        assertThat(graph.nodes()).filteredOn(node -> node.is("Cast")).hasSize(2);
    }

    @Test
    void floatsOfEveryWidthAreWidened() {
        HostTensor half = HostTensor.zeros(DType.FLOAT16, new long[] {1});
        half.bytes().putShort(0, (short) 0x3E00);
        HostTensor brain = HostTensor.zeros(DType.BFLOAT16, new long[] {1});
        brain.bytes().putShort(0, (short) 0x3FC0);
        assertThat(half.toFloats()).containsExactly(1.5f);
        assertThat(brain.toFloats()).containsExactly(1.5f);
        assertThat(HostTensor.ofBool(new long[] {2}, true, false).toLongs()).containsExactly(1, 0);
        assertThat(HostTensor.ofIntegers(DType.INT32, new long[] {2}, -1, 3).toLongs())
                .containsExactly(-1, 3);
        assertThatThrownBy(() -> new HostTensor(DType.FLOAT, new long[] {2}, ByteBuffer.allocate(4)))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageContaining("FLOAT[2] takes 8 bytes, found 4");
    }

    private static StringStringEntryProto nowhere() {
        return StringStringEntryProto.newBuilder()
                .setKey("location")
                .setValue("supplied-by-session")
                .build();
    }

    /** {@code o = w[i]} with the weight outside the model, in a file that is not named. */
    private static ModelProto gather(DType dtype, long size) {
        TensorProto weight = TensorProto.newBuilder()
                .setName("w")
                .setDataType(dtype.code())
                .addDims(size)
                .setDataLocation(TensorProto.DataLocation.EXTERNAL)
                .addExternalData(nowhere())
                .build();
        GraphProto.Builder graph = GraphProto.newBuilder()
                .addInitializer(weight)
                .addInput(value("i", DType.INT64))
                .addOutput(value("o", dtype));
        return model(graph, "Gather", List.of("w", "i"), "o");
    }

    private static ModelProto model(GraphProto.Builder graph, String op, List<String> inputs, String output) {
        graph.setName("g")
                .addNode(
                        NodeProto.newBuilder().setOpType(op).addAllInput(inputs).addOutput(output));
        return ModelProto.newBuilder()
                .setIrVersion(9)
                .addOpsetImport(OperatorSetIdProto.newBuilder().setVersion(17))
                .setGraph(graph)
                .build();
    }

    private static ValueInfoProto value(String name, DType dtype) {
        TensorShapeProto shape = TensorShapeProto.newBuilder()
                .addDim(TensorShapeProto.Dimension.newBuilder().setDimParam("n"))
                .build();
        TypeProto.Tensor type = TypeProto.Tensor.newBuilder()
                .setElemType(dtype.code())
                .setShape(shape)
                .build();
        return ValueInfoProto.newBuilder()
                .setName(name)
                .setType(TypeProto.newBuilder().setTensorType(type))
                .build();
    }
}
