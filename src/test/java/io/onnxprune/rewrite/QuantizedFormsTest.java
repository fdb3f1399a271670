// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.rewrite;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.TestModels;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Role;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Bytes;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.GraphBuilder;
import io.onnxprune.ir.Graphs;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.Plan;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.Outputs;
import io.onnxprune.runtime.Session;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.function.Predicate;
import java.util.function.Supplier;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Two linear layers in every quantised form, with one scale and zero point or one for each column. Without some of the
 * units between them, the model computes the same as with these units zero. A scale, zero point or bias that were not
 * cut would not fit its matrix any more.
 */
@Tag("ort")
class QuantizedFormsTest {
    private static final int HIDDEN = 64;
    private static final int UNITS = 128;
    private static final int VOCABULARY = 40;

    /** A linear layer. */
    private interface Layer {
        String add(Quantized graph, String x, int inputs, int outputs);
    }

    static Stream<Arguments> forms() {
        Map<String, Layer> forms = new LinkedHashMap<>();
        for (boolean each : new boolean[] {false, true}) {
            String columns = each ? ", each column" : ", the matrix";
            forms.put("MatMulInteger" + columns, (g, x, in, out) -> g.integer(x, in, out, each));
            forms.put("MatMulIntegerToFloat" + columns, (g, x, in, out) -> g.integerToFloat(x, in, out, each));
            forms.put("DynamicQuantizeMatMul" + columns, (g, x, in, out) -> g.dynamic(x, in, out, each));
            forms.put("QLinearMatMul" + columns, (g, x, in, out) -> g.linear(x, in, out, each));
            forms.put("QGemm" + columns, (g, x, in, out) -> g.gemm(x, in, out, each, false));
            forms.put("QGemm, transposed" + columns, (g, x, in, out) -> g.gemm(x, in, out, each, true));
            forms.put("QLinearConv" + columns, (g, x, in, out) -> g.convolution(x, in, out, each));
            for (DType type : List.of(DType.INT8, DType.UINT8, DType.INT4, DType.UINT4)) {
                forms.put(
                        "DequantizeLinear of " + type + columns,
                        (g, x, in, out) -> g.dequantized(x, in, out, each, type));
            }
        }
        forms.put("ConvInteger", (g, x, in, out) -> g.integerConvolution(x, in, out));
        for (DType type : List.of(DType.INT8, DType.UINT4, DType.INT4)) {
            for (int axis : new int[] {0, 1}) {
                forms.put("blocks of " + type + " along " + axis, (g, x, in, out) -> g.blocked(x, in, out, axis, type));
            }
        }
        forms.put("float8 by DequantizeLinear", (g, x, in, out) -> g.float8(x, in, out, true));
        forms.put("float8 by Cast", (g, x, in, out) -> g.float8(x, in, out, false));
        for (int bits : new int[] {4, 8}) {
            forms.put("MatMulNBits of " + bits, (g, x, in, out) -> g.matMulNBits(x, in, out, bits));
        }
        forms.put("QAttention", (g, x, in, out) -> out == UNITS ? g.attention(x, in, out) : g.plain(x, in, out));
        forms.put("QLinearAdd, QLinearMul, QLinearSigmoid", (g, x, in, out) -> g.elementwise(g.plain(x, in, out), out));
        return forms.entrySet().stream().map(form -> Arguments.of(form.getKey(), form.getValue()));
    }

    @ParameterizedTest(name = "{0}")
    @MethodSource("forms")
    void everyOperandAlongAnAxisIsPrunedWithIt(String name, Layer layer) {
        Quantized graph = new Quantized();
        Structure structure = TestModels.structure(graph.model(layer, graph.floats(1, VOCABULARY, HIDDEN)));

        // The other prunable dimension is the width of the embedding.
        assertPrunes(
                structure,
                dimension -> dimension.members().stream()
                        .noneMatch(member -> member.tensor().dim(0) == VOCABULARY));
    }

    @ParameterizedTest
    @EnumSource(names = {"UINT8", "INT4", "UINT4"})
    void embeddingsArePrunedByBlocks(DType type) {
        Quantized graph = new Quantized();
        Structure structure = TestModels.structure(graph.model(Quantized::plain, type));

        assertPrunes(structure, dimension -> dimension.role() == Role.HIDDEN);
    }

    private static void assertPrunes(Structure structure, Predicate<Dimension> wanted) {
        List<Dimension> units = structure.dimensions().stream()
                .filter(dimension -> dimension.isPrunable() && wanted.test(dimension))
                .toList();
        assertThat(units).as(structure.dimensions().toString()).hasSize(1);
        int size = units.get(0).size();
        int[] kept = IntStream.range(0, size)
                .filter(unit -> size < 9 ? unit % 2 == 1 : unit % 3 > 0)
                .toArray();
        Plan plan = new Plan("", Map.of(units.get(0).name(), kept), null, null);

        float[] expected = logits(MaskedModel.of(structure, plan, Map.of()));
        float[] found = logits(Slicer.slice(structure, plan.keep(structure), Map.of()));

        assertThat(expected).isNotEqualTo(logits(structure.analysis().program().model()));
        assertThat(found).hasSameSizeAs(expected);
        for (int i = 0; i < found.length; i++) {
            assertThat(found[i]).isCloseTo(expected[i], within(1e-4f));
        }
    }

    private static float[] logits(Model model) {
        long[] ids = new Random(5).longs(14, 0, VOCABULARY).toArray();
        try (Session session = TestModels.runtime().open(model, false);
                Outputs run = session.run(
                        Map.of("input_ids", HostTensor.ofInt64(new long[] {2, 7}, ids)), Set.of("logits"))) {
            return run.tensor("logits").toFloats();
        }
    }

    /** Builds the model around the layers. */
    private static final class Quantized {
        private final Random random = new Random(3);
        private final GraphBuilder graph = new GraphBuilder("v", Set.of("input_ids", "logits"));

        Model model(Layer layer, String table) {
            return model(layer, () -> graph.add("Gather", table, "input_ids"));
        }

        Model model(Layer layer, DType type) {
            return model(layer, () -> lookUp(HIDDEN, type));
        }

        private Model model(Layer layer, Supplier<String> embedding) {
            String x = embedding.get();
            String inner = graph.add("Relu", layer.add(this, x, HIDDEN, UNITS));
            String sum = graph.add("Add", x, layer.add(this, inner, UNITS, HIDDEN));
            graph.add(Node.of("", "MatMul", List.of(sum, floats(1, HIDDEN, VOCABULARY)), List.of("logits"), Map.of()));
            Graph main = new Graph(
                    "main",
                    List.of(Graphs.value("input_ids", DType.INT64, "batch", "length")),
                    List.of(Graphs.floats("logits", "batch", "length", VOCABULARY)),
                    List.of(),
                    graph.initializers(),
                    graph.nodes(),
                    new byte[0]);
            Map<String, Long> opsets = Map.of("", 21L, "com.microsoft", 1L);
            return new Model(10, opsets, main, Map.of(), false, Path.of("by-hand.onnx"), new byte[0]);
        }

        String plain(String x, int inputs, int outputs) {
            return graph.add("MatMul", x, floats(0.3, inputs, outputs));
        }

        String integer(String x, int inputs, int outputs, boolean each) {
            List<String> q = graph.add("DynamicQuantizeLinear", List.of(x), Map.of(), 3);
            String product = graph.add(
                    "MatMulInteger",
                    q.get(0),
                    integers(DType.INT8, inputs, outputs),
                    q.get(2),
                    zeros(DType.INT8, each, outputs));
            String real = graph.add("Cast", List.of(product), Map.of("to", new Attribute.Int(DType.FLOAT.code())));
            return graph.add("Mul", real, graph.add("Mul", q.get(1), scales(each, outputs)));
        }

        String integerToFloat(String x, int inputs, int outputs, boolean each) {
            List<String> q = graph.add("DynamicQuantizeLinear", List.of(x), Map.of(), 3);
            return contrib(
                    "MatMulIntegerToFloat",
                    Map.of(),
                    q.get(0),
                    integers(DType.INT8, inputs, outputs),
                    q.get(1),
                    scales(each, outputs),
                    q.get(2),
                    zeros(DType.INT8, each, outputs),
                    floats(0.2, outputs));
        }

        String dynamic(String x, int inputs, int outputs, boolean each) {
            return contrib(
                    "DynamicQuantizeMatMul",
                    Map.of(),
                    x,
                    integers(DType.INT8, inputs, outputs),
                    scales(each, outputs),
                    zeros(DType.INT8, each, outputs),
                    floats(0.2, outputs));
        }

        String linear(String x, int inputs, int outputs, boolean each) {
            String product = graph.add(
                    "QLinearMatMul",
                    quantized(x),
                    graph.scalar(0.03f),
                    zero(),
                    integers(DType.INT8, inputs, outputs),
                    scales(each, outputs),
                    zeros(DType.INT8, each, outputs),
                    graph.scalar(0.1f),
                    zero());
            return graph.add("DequantizeLinear", product, graph.scalar(0.1f), zero());
        }

        String gemm(String x, int inputs, int outputs, boolean each, boolean transposed) {
            String rows = graph.add("Reshape", x, graph.ints(-1, inputs));
            String weight = transposed ? integers(DType.INT8, outputs, inputs) : integers(DType.INT8, inputs, outputs);
            String product = contrib(
                    "QGemm",
                    Map.of("transB", new Attribute.Int(transposed ? 1 : 0)),
                    quantized(rows),
                    graph.scalar(0.03f),
                    zero(),
                    weight,
                    scales(each, outputs),
                    zeros(DType.INT8, each, outputs),
                    graph.constant(Tensor.ofIndices(
                            DType.INT32,
                            new long[] {outputs},
                            random.longs(outputs, -40, 40).toArray())),
                    graph.scalar(0.1f),
                    zero());
            String real = graph.add("DequantizeLinear", product, graph.scalar(0.1f), zero());
            return graph.add(
                    "Reshape",
                    real,
                    graph.add(
                            "Concat",
                            List.of(graph.add("Shape", "input_ids"), graph.ints(outputs)),
                            Map.of("axis", new Attribute.Int(0))));
        }

        String convolution(String x, int inputs, int outputs, boolean each) {
            String result = graph.add(
                    "QLinearConv",
                    quantized(swapped(x)),
                    graph.scalar(0.03f),
                    zero(),
                    integers(DType.INT8, outputs, inputs, 1),
                    scales(each, outputs),
                    graph.constant(Tensor.of(
                            DType.INT8,
                            each ? new long[] {outputs} : new long[0],
                            Bytes.of(ByteBuffer.allocate(each ? outputs : 1)))),
                    graph.scalar(0.1f),
                    zero(),
                    graph.constant(Tensor.ofIndices(
                            DType.INT32,
                            new long[] {outputs},
                            random.longs(outputs, -40, 40).toArray())));
            return swapped(graph.add("DequantizeLinear", result, graph.scalar(0.1f), zero()));
        }

        String integerConvolution(String x, int inputs, int outputs) {
            List<String> q = graph.add("DynamicQuantizeLinear", List.of(swapped(x)), Map.of(), 3);
            String product = graph.add(
                    "ConvInteger",
                    q.get(0),
                    integers(DType.UINT8, outputs, inputs, 1),
                    q.get(2),
                    zeros(DType.UINT8, false, 1));
            String real = graph.add("Cast", List.of(product), Map.of("to", new Attribute.Int(DType.FLOAT.code())));
            return swapped(graph.add("Mul", real, graph.add("Mul", q.get(1), scales(false, 1))));
        }

        String dequantized(String x, int inputs, int outputs, boolean each, DType type) {
            String weight = graph.add(
                    "DequantizeLinear",
                    List.of(integers(type, inputs, outputs), scales(each, outputs), zeros(type, each, outputs)),
                    Map.of("axis", new Attribute.Int(1)));
            return graph.add("MatMul", x, weight);
        }

        String blocked(String x, int inputs, int outputs, int axis, DType type) {
            long[] blocks = {inputs, outputs};
            blocks[axis] /= 16;
            String weight = graph.add(
                    "DequantizeLinear",
                    List.of(integers(type, inputs, outputs), graph.constant(positive(blocks)), integers(type, blocks)),
                    Map.of("axis", new Attribute.Int(axis), "block_size", new Attribute.Int(16)));
            return graph.add("MatMul", x, weight);
        }

        String float8(String x, int inputs, int outputs, boolean scaled) {
            byte[] bytes = new byte[inputs * outputs];
            for (int i = 0; i < bytes.length; i++) {
                bytes[i] = (byte) (random.nextInt(48) | random.nextInt(2) << 7); // below 1, of both signs
            }
            String stored = graph.constant(
                    Tensor.of(DType.FLOAT8E4M3FN, new long[] {inputs, outputs}, Bytes.of(ByteBuffer.wrap(bytes))));
            String weight = scaled
                    ? graph.add(
                            "DequantizeLinear",
                            List.of(stored, scales(true, outputs)),
                            Map.of("axis", new Attribute.Int(1)))
                    : graph.add("Cast", List.of(stored), Map.of("to", new Attribute.Int(DType.FLOAT.code())));
            return graph.add("MatMul", x, weight);
        }

        String matMulNBits(String x, int inputs, int outputs, int bits) {
            int blocks = inputs / 16;
            return contrib(
                    "MatMulNBits",
                    Map.of(
                            "K", new Attribute.Int(inputs),
                            "N", new Attribute.Int(outputs),
                            "bits", new Attribute.Int(bits),
                            "block_size", new Attribute.Int(16)),
                    x,
                    integers(DType.UINT8, outputs, blocks, 16 * bits / 8),
                    graph.constant(positive(outputs, blocks)),
                    integers(DType.UINT8, outputs, (blocks * bits + 7) / 8),
                    "",
                    floats(0.2, outputs));
        }

        String attention(String x, int inputs, int outputs) {
            return contrib(
                    "QAttention",
                    Map.of("num_heads", new Attribute.Int(4), "unidirectional", new Attribute.Int(1)),
                    quantized(x),
                    integers(DType.INT8, inputs, 3L * outputs),
                    floats(0.2, 3L * outputs),
                    graph.scalar(0.03f),
                    scales(true, 3 * outputs),
                    "",
                    zero(),
                    zeros(DType.INT8, true, 3 * outputs));
        }

        String elementwise(String x, int width) {
            String bias = integers(DType.UINT8, width);
            String sum = contrib(
                    "QLinearAdd",
                    Map.of(),
                    quantized(x),
                    graph.scalar(0.03f),
                    zero(),
                    bias,
                    graph.scalar(0.01f),
                    zero(),
                    graph.scalar(0.03f),
                    zero());
            String gate =
                    contrib("QLinearSigmoid", Map.of(), sum, graph.scalar(0.03f), zero(), graph.scalar(0.01f), zero());
            String product = contrib(
                    "QLinearMul",
                    Map.of(),
                    sum,
                    graph.scalar(0.03f),
                    zero(),
                    gate,
                    graph.scalar(0.01f),
                    zero(),
                    graph.scalar(0.03f),
                    zero());
            return graph.add("DequantizeLinear", product, graph.scalar(0.03f), zero());
        }

        String lookUp(int width, DType type) {
            int each = type == DType.UINT8 ? 2 : 1;
            return contrib(
                    "GatherBlockQuantized",
                    Map.of(
                            "block_size", new Attribute.Int(16),
                            "bits", new Attribute.Int(4),
                            "gather_axis", new Attribute.Int(0),
                            "quantize_axis", new Attribute.Int(1)),
                    integers(type, VOCABULARY, width / each),
                    "input_ids",
                    graph.constant(positive(VOCABULARY, width / 16)),
                    integers(type, VOCABULARY, width / 16 / each));
        }

        private String swapped(String x) {
            return graph.add("Transpose", List.of(x), Map.of("perm", new Attribute.Ints(List.of(0L, 2L, 1L))));
        }

        private String quantized(String x) {
            return graph.add("QuantizeLinear", x, graph.scalar(0.03f), zero());
        }

        private String zero() {
            return graph.constant(Tensor.of(DType.UINT8, new long[0], Bytes.of(ByteBuffer.wrap(new byte[] {117}))));
        }

        private String zeros(DType type, boolean each, int columns) {
            return each ? integers(type, columns) : integers(type, new long[0]);
        }

        private String scales(boolean each, int columns) {
            return graph.constant(each ? positive(columns) : positive());
        }

        private Tensor positive(long... shape) {
            float[] values = new float[(int) Tensor.elements(shape)];
            for (int i = 0; i < values.length; i++) {
                values[i] = 0.002f + 0.003f * random.nextFloat();
            }
            return Tensor.ofFloats(DType.FLOAT, shape, values);
        }

        private String integers(DType type, long... shape) {
            byte[] bytes = new byte[(int) type.bytes(Tensor.elements(shape))];
            random.nextBytes(bytes);
            return graph.constant(Tensor.of(type, shape, Bytes.of(ByteBuffer.wrap(bytes))));
        }

        private String floats(double deviation, long... shape) {
            float[] values = new float[(int) Tensor.elements(shape)];
            for (int i = 0; i < values.length; i++) {
                values[i] = (float) (deviation * random.nextGaussian());
            }
            return graph.constant(Tensor.ofFloats(DType.FLOAT, shape, values));
        }

        private String contrib(String op, Map<String, Attribute> attributes, String... inputs) {
            String result = graph.freshName();
            List<String> operands = new ArrayList<>(List.of(inputs));
            graph.add(new Node("", "com.microsoft", op, operands, List.of(result), attributes, new byte[0]));
            return result;
        }
    }
}
