// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Tensor;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Mixtures of experts, with random options, compared with ONNX Runtime's kernels. */
@Tag("ort")
class ExpertOperatorTest {
    private static final double TOLERANCE = 2e-5;
    private static final String CONTRIB = "com.microsoft";

    static IntStream seeds() {
        return IntStream.range(0, 80);
    }

    private static Attribute number(long value) {
        return new Attribute.Int(value);
    }

    @SafeVarargs
    private static <T> T any(Random random, T... options) {
        return options[random.nextInt(options.length)];
    }

    /** Random options that both operators have. */
    private static Map<String, Attribute> options(Random random, String activation, long fusion) {
        Map<String, Attribute> attributes = new LinkedHashMap<>();
        attributes.put("k", number(any(random, 1L, 2L, 3L)));
        attributes.put("activation_type", new Attribute.Text(activation));
        attributes.put("normalize_routing_weights", number(random.nextInt(2)));
        if (fusion > 0) {
            attributes.put("swiglu_fusion", number(fusion));
            attributes.put("activation_alpha", new Attribute.Real(any(random, 1f, 1.702f)));
            attributes.put("activation_beta", new Attribute.Real(any(random, 0f, 1f)));
            if (random.nextBoolean()) {
                attributes.put("swiglu_limit", new Attribute.Real(any(random, 0.5f, 7f)));
            }
        }
        return attributes;
    }

    private static String router(FusedGraph g, long experts) {
        return g.graph().add("Reshape", g.operand(experts), g.graph().ints(-1, experts));
    }

    private static String tokens(FusedGraph g, long hidden) {
        String x = g.operand(hidden);
        return g.random.nextBoolean()
                ? x
                : g.graph().add("Reshape", x, g.graph().ints(-1, hidden));
    }

    @ParameterizedTest
    @MethodSource("seeds")
    void moe(int seed) {
        FusedGraph g = new FusedGraph(seed);
        Random random = g.random;
        String activation = any(random, "relu", "gelu", "silu", "identity", "swiglu", "swiglu");
        boolean gated = activation.equals("swiglu");
        long experts = any(random, 3L, 4L, 9L);
        long hidden = any(random, 8L, 12L);
        long inner = any(random, 6L, 16L);
        long outputs = gated ? 2 * inner : inner;
        List<String> operands = new ArrayList<>();
        operands.add(tokens(g, hidden));
        operands.add(router(g, experts));
        operands.add(g.graph().constant(g.numbers(0.3, experts, outputs, hidden)));
        operands.add(random.nextBoolean() ? g.weight(experts, outputs) : "");
        operands.add(g.graph().constant(g.numbers(0.3, experts, hidden, inner)));
        operands.add(random.nextBoolean() ? g.weight(experts, hidden) : "");
        g.test(CONTRIB, "MoE", operands, options(random, activation, gated ? 1 : 0), 3);
        g.assertLowered(20, TOLERANCE);
    }

    @ParameterizedTest
    @MethodSource("seeds")
    void quantisedMoe(int seed) {
        FusedGraph g = new FusedGraph(seed);
        Random random = g.random;
        long fusion = random.nextInt(2);
        String activation = fusion > 0 ? "swiglu" : any(random, "relu", "gelu", "silu", "identity");
        long bits = any(random, 4L, 8L);
        long block = any(random, 0L, 0L, 16L, 32L);
        long experts = any(random, 3L, 4L, 9L);
        long hidden = any(random, 64L, 128L);
        long inner = any(random, 64L, 128L);
        long outputs = fusion > 0 ? 2 * inner : inner;
        boolean zeros = random.nextBoolean();
        Map<String, Attribute> attributes = options(random, activation, fusion);
        attributes.put("expert_weight_bits", number(bits));
        if (block > 0) {
            attributes.put("block_size", number(block));
        }
        String[] operands = new String[15];
        java.util.Arrays.fill(operands, "");
        operands[0] = tokens(g, hidden);
        operands[1] = router(g, experts);
        linear(g, operands, new int[] {2, 3, 4, 11}, new long[] {experts, outputs, hidden, bits, block}, zeros);
        linear(g, operands, new int[] {5, 6, 7, 12}, new long[] {experts, hidden, inner, bits, block}, zeros);
        operands[14] = random.nextInt(3) == 0 ? router(g, experts) : "";
        g.test(CONTRIB, "QMoE", List.of(operands), attributes, 3);
        g.assertLowered(20, TOLERANCE);
    }

    /** Sets weights, scales, biases and zero points at {@code places}. */
    private static void linear(FusedGraph g, String[] operands, int[] places, long[] sizes, boolean zeros) {
        long each = 8 / sizes[3];
        long blocks = sizes[4] == 0 ? 1 : sizes[2] / sizes[4];
        operands[places[0]] = g.bytes(DType.UINT8, sizes[0], sizes[1], sizes[2] / each);
        long[] shape = sizes[4] == 0 ? new long[] {sizes[0], sizes[1]} : new long[] {sizes[0], sizes[1], blocks};
        Tensor scales = g.numbers(sizes[3] == 4 ? 0.01 : 0.001, shape);
        operands[places[1]] = g.graph().constant(scales);
        operands[places[2]] = g.random.nextBoolean() ? g.weight(sizes[0], sizes[1]) : "";
        if (zeros) {
            operands[places[3]] = sizes[4] == 0
                    ? g.bytes(DType.UINT8, sizes[0], sizes[1] / each)
                    : g.bytes(DType.UINT8, sizes[0], sizes[1], (blocks + each - 1) / each);
        }
    }
}
