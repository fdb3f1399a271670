// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Tensor;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Norms, rotary embeddings, activations and matrix products with all of their options, compared with ONNX Runtime's
 * kernels.
 */
@Tag("ort")
class FusedOperatorTest {
    private static final double TOLERANCE = 1e-5;
    private static final String CONTRIB = "com.microsoft";

    static IntStream seeds() {
        return IntStream.range(0, 24);
    }

    private static Attribute number(long value) {
        return new Attribute.Int(value);
    }

    private static Attribute real(float value) {
        return new Attribute.Real(value);
    }

    private static List<String> operands(String... names) {
        List<String> operands = new ArrayList<>(List.of(names));
        while (operands.get(operands.size() - 1).isEmpty()) {
            operands.remove(operands.size() - 1);
        }
        return operands;
    }

    @ParameterizedTest
    @MethodSource("seeds")
    void contribRotaryEmbedding(int seed) {
        FusedGraph g = new FusedGraph(seed);
        Random random = g.random;
        long size = 8;
        long heads = 3;
        boolean flat = random.nextBoolean();
        boolean partial = random.nextBoolean();
        Map<String, Attribute> attributes = new LinkedHashMap<>();
        attributes.put("interleaved", number(random.nextInt(2)));
        if (partial) {
            attributes.put("rotary_embedding_dim", number(4));
        }
        if (partial || random.nextBoolean()) {
            attributes.put("num_heads", number(heads));
        }
        String x = flat ? g.operand(heads * size) : g.headFirst(heads, size);
        String positions = random.nextBoolean() ? g.positions() : g.graph().ints(2);
        long half = partial ? 2 : size / 2;
        List<String> operands = List.of(x, positions, g.weight(20, half), g.weight(20, half));
        g.test(CONTRIB, "RotaryEmbedding", operands, attributes, flat ? 3 : 4);
        g.assertLowered(20, TOLERANCE);
    }

    @ParameterizedTest
    @MethodSource("seeds")
    void onnxRotaryEmbedding(int seed) {
        FusedGraph g = new FusedGraph(seed);
        Random random = g.random;
        long size = 8;
        long heads = 3;
        boolean flat = random.nextBoolean();
        boolean partial = random.nextBoolean();
        Map<String, Attribute> attributes = new LinkedHashMap<>();
        attributes.put("interleaved", number(random.nextInt(2)));
        attributes.put("num_heads", number(heads));
        if (partial) {
            attributes.put("rotary_embedding_dim", number(4));
        }
        long half = partial ? 2 : size / 2;
        String x = flat ? g.operand(heads * size) : g.headFirst(heads, size);
        boolean lookedUp = random.nextBoolean();
        List<String> operands = lookedUp
                ? List.of(x, g.weight(20, half), g.weight(20, half), g.positions())
                : List.of(x, g.operand(half), g.operand(half));
        g.test("", "RotaryEmbedding", operands, attributes, flat ? 3 : 4);
        g.assertLowered(23, TOLERANCE);
    }

    @ParameterizedTest
    @CsvSource({"true, true, true", "true, false, true", "false, true, true", "false, false, false"})
    void skipLayerNormalization(boolean beta, boolean bias, boolean sum) {
        FusedGraph g = new FusedGraph(1);
        List<String> operands =
                operands(g.operand(6), g.operand(6), g.weight(6), beta ? g.weight(6) : "", bias ? g.weight(6) : "");
        Map<String, Attribute> attributes = sum ? Map.of("epsilon", real(0.1f)) : Map.of();
        g.test(CONTRIB, "SkipLayerNormalization", operands, attributes, 3, -1, -1, sum ? 3 : -1);
        g.assertLowered(20, TOLERANCE);
    }

    @ParameterizedTest
    @CsvSource({"true, true", "true, false", "false, true", "false, false"})
    void skipRootMeanSquareNormalization(boolean bias, boolean sum) {
        FusedGraph g = new FusedGraph(1);
        List<String> operands = operands(g.operand(6), g.operand(6), g.weight(6), bias ? g.weight(6) : "");
        Map<String, Attribute> attributes = sum ? Map.of("epsilon", real(0.1f)) : Map.of();
        g.test(CONTRIB, "SkipSimplifiedLayerNormalization", operands, attributes, 3, -1, -1, sum ? 3 : -1);
        g.assertLowered(20, TOLERANCE);
    }

    @ParameterizedTest
    @CsvSource({"-1, true", "2, false", "-2, false"})
    void rootMeanSquareNormalization(int axis, boolean inverse) {
        FusedGraph g = new FusedGraph(1);
        Map<String, Attribute> attributes = Map.of("axis", number(axis), "epsilon", real(0.1f));
        String weight = axis == -1 ? g.weight(6) : g.weight(4, 6);
        List<String> operands = List.of(g.operand(4, 6), weight);
        g.test("", "SimplifiedLayerNormalization", operands, attributes, 4, inverse ? 4 : -1);
        g.assertLowered(17, TOLERANCE);
        FusedGraph standard = new FusedGraph(1);
        String scale = axis == -1 ? standard.weight(6) : standard.weight(4, 6);
        standard.test("", "RMSNormalization", List.of(standard.operand(4, 6), scale), attributes, 4);
        standard.assertLowered(23, TOLERANCE);
    }

    @ParameterizedTest
    @CsvSource({"true, true, true", "true, false, false", "false, true, true", "false, false, true"})
    void embedLayerNormalization(boolean segments, boolean mask, boolean positions) {
        FusedGraph g = new FusedGraph(1);
        String ids = g.cast(g.tokens(), DType.INT32);
        List<String> operands = operands(
                ids,
                segments ? g.mask() : "",
                g.weight(32, 6),
                g.weight(20, 6),
                segments ? g.weight(2, 6) : "",
                g.weight(6),
                g.weight(6),
                mask ? g.mask() : "",
                positions ? g.cast(g.positions(), DType.INT32) : "");
        g.test(CONTRIB, "EmbedLayerNormalization", operands, Map.of("epsilon", real(0.1f)), 3, 1, 3);
        g.assertLowered(20, TOLERANCE);
    }

    @ParameterizedTest
    @CsvSource({"FastGelu, false", "FastGelu, true", "BiasGelu, true", "Gelu, false", "QuickGelu, false"})
    void activation(String operator, boolean bias) {
        for (float alpha : operator.equals("QuickGelu") ? new float[] {1, 1.702f, 0.5f} : new float[] {0}) {
            FusedGraph g = new FusedGraph(1);
            Map<String, Attribute> attributes = alpha == 0 ? Map.of() : Map.of("alpha", real(alpha));
            g.test(CONTRIB, operator, operands(g.operand(6), bias ? g.weight(6) : ""), attributes, 3);
            g.assertLowered(18, TOLERANCE);
        }
    }

    @ParameterizedTest
    @MethodSource("seeds")
    void fusedMatMul(int seed) {
        FusedGraph g = new FusedGraph(seed);
        Random random = g.random;
        boolean swapA = random.nextBoolean();
        boolean swapB = random.nextBoolean();
        boolean moveA = random.nextBoolean();
        boolean moveB = random.nextBoolean();
        // A is [batch, heads, length, size] and B is [batch, heads, size, 5], stored as the attributes say.
        String a = stored(g, g.headFirst(3, 4), swapA, moveA);
        String columns = g.graph().add("MatMul", g.transpose(g.operand(3, 4), 0, 2, 3, 1), g.headFirst(3, 5));
        String b = stored(g, columns, swapB, moveB);
        Map<String, Attribute> attributes = new LinkedHashMap<>();
        attributes.put("transA", number(swapA ? 1 : 0));
        attributes.put("transB", number(swapB ? 1 : 0));
        attributes.put("transBatchA", number(moveA ? 1 : 0));
        attributes.put("transBatchB", number(moveB ? 1 : 0));
        if (random.nextBoolean()) {
            attributes.put("alpha", real(0.25f));
        }
        g.test(CONTRIB, "FusedMatMul", List.of(a, b), attributes, 4);
        g.assertLowered(20, TOLERANCE);
    }

    /** {@code [b, h, m, n]} in the stored form, which the operator transposes back. */
    private static String stored(FusedGraph g, String x, boolean swapped, boolean moved) {
        String rows = swapped ? g.transpose(x, 0, 1, 3, 2) : x;
        return moved ? g.transpose(rows, 2, 0, 1, 3) : rows;
    }

    @ParameterizedTest
    @CsvSource({"Relu", "LeakyRelu", "Tanh", "Sigmoid"})
    void fusedGemm(String activation) {
        FusedGraph g = new FusedGraph(1);
        String flat = g.graph().add("Reshape", g.operand(6), g.graph().ints(-1, 6));
        Map<String, Attribute> attributes = new LinkedHashMap<>();
        attributes.put("transB", number(1));
        attributes.put("alpha", real(0.5f));
        attributes.put("activation", new Attribute.Text(activation));
        if (activation.equals("LeakyRelu")) {
            attributes.put("activation_alpha", real(0.2f));
        }
        g.test(CONTRIB, "FusedGemm", List.of(flat, g.weight(4, 6), g.weight(4)), attributes, 2);
        g.assertLowered(20, TOLERANCE);
    }

    @ParameterizedTest
    @MethodSource("seeds")
    void matMulNBits(int seed) {
        FusedGraph g = new FusedGraph(seed);
        Random random = g.random;
        long bits = random.nextInt(3) == 0 ? 8 : 4;
        long block = random.nextBoolean() ? 16 : 32;
        long columns = random.nextBoolean() ? 64 : 72;
        long rows = 5;
        long blocks = (columns + block - 1) / block;
        String packed = g.bytes(DType.UINT8, rows, blocks, block * bits / 8);
        boolean flat = random.nextBoolean();
        String scales = flat ? g.weight(rows * blocks) : g.weight(rows, blocks);
        int form = random.nextInt(3);
        String zeros = switch (form) {
            case 0 -> {
                long bytes = (blocks * bits + 7) / 8;
                yield flat ? g.bytes(DType.UINT8, rows * bytes) : g.bytes(DType.UINT8, rows, bytes);
            }
            case 1 -> bits == 4 ? g.graph().constant(g.numbers(4, rows, blocks)) : "";
            default -> "";
        };
        // With a group index the kernel reads zero points of bytes in another order than the specification.
        boolean grouped = bits == 4 && columns == 64 && form > 0 && random.nextBoolean();
        String groups = grouped ? groups(g, columns, blocks) : "";
        String bias = random.nextBoolean() ? g.weight(rows) : "";
        Map<String, Attribute> attributes = new LinkedHashMap<>();
        attributes.put("K", number(columns));
        attributes.put("N", number(rows));
        attributes.put("bits", number(bits));
        attributes.put("block_size", number(block));
        g.test(
                CONTRIB,
                "MatMulNBits",
                operands(g.operand(columns), packed, scales, zeros, groups, bias),
                attributes,
                3);
        g.assertLowered(20, TOLERANCE);
    }

    /** A random group for every column. */
    private static String groups(FusedGraph g, long columns, long blocks) {
        long[] indices = g.random.longs(columns, 0, blocks).toArray();
        return g.graph().constant(Tensor.ofIndices(DType.INT32, new long[] {columns}, indices));
    }

    @ParameterizedTest
    @MethodSource("seeds")
    void gatherBlockQuantized(int seed) {
        FusedGraph g = new FusedGraph(seed);
        Random random = g.random;
        long bits = random.nextBoolean() ? 8 : 4;
        long block = random.nextBoolean() ? 16 : 32;
        long width = 96;
        long blocks = width / block;
        String data = g.bytes(DType.UINT8, 32, width * bits / 8);
        String zeros = random.nextBoolean() ? g.bytes(DType.UINT8, 32, (blocks * bits + 7) / 8) : "";
        Map<String, Attribute> attributes = new LinkedHashMap<>();
        attributes.put("bits", number(bits));
        attributes.put("block_size", number(block));
        attributes.put("gather_axis", number(0));
        attributes.put("quantize_axis", number(random.nextBoolean() ? 1 : -1));
        List<String> operands = operands(data, g.tokens(), g.weight(32, blocks), zeros);
        g.test(CONTRIB, "GatherBlockQuantized", operands, attributes, 3);
        g.assertLowered(20, TOLERANCE);
    }

    @ParameterizedTest
    @CsvSource({
        "INT8, -1, 0",
        "UINT8, 0, 0",
        "INT8, 1, 0",
        "INT4, 0, 0",
        "UINT4, 1, 0",
        "INT8, 0, 4",
        "UINT8, 1, 3",
        "INT4, 1, 3"
    })
    void dequantizeLinear(DType dtype, int axis, long block) {
        for (boolean zero : new boolean[] {true, false}) {
            FusedGraph g = new FusedGraph(1);
            long[] shape = {8, 6};
            long[] scale = axis < 0 ? new long[0] : new long[] {shape[axis]};
            Map<String, Attribute> attributes = new LinkedHashMap<>();
            if (axis >= 0) {
                attributes.put("axis", number(axis));
            }
            if (block > 0) {
                scale = shape.clone();
                scale[axis] /= block;
                attributes.put("block_size", number(block));
            }
            Tensor scales = g.numbers(1, scale);
            String zeros = zero ? g.bytes(dtype, scale) : "";
            List<String> operands = operands(g.bytes(dtype, shape), g.graph().constant(scales), zeros);
            g.test("", "DequantizeLinear", operands, attributes, 2);
            g.assertLowered(21, TOLERANCE);
        }
    }

    /** Equal up to the rounding of the activations, which has no gradient and is left out. */
    @ParameterizedTest
    @ValueSource(strings = {"UINT8", "INT8"})
    void dynamicallyQuantizedLinearLayer(DType dtype) {
        FusedGraph g = new FusedGraph(1);
        String x = g.operand(16);
        List<String> quantized = g.graph().add("DynamicQuantizeLinear", List.of(x), Map.of(), 3);
        String weight = g.bytes(dtype, 16, 5);
        String zero = g.bytes(dtype);
        String product =
                g.cast(g.graph().add("MatMulInteger", quantized.get(0), weight, quantized.get(2), zero), DType.FLOAT);
        g.test("", "Mul", List.of(product, g.graph().add("Mul", quantized.get(1), g.weight())), Map.of(), 3);
        Model lowered = g.assertLowered(18, 2e-2);
        assertThat(lowered.graph().nodes())
                .noneMatch(node -> node.is("MatMulInteger") || node.is("DynamicQuantizeLinear"));
    }
}
