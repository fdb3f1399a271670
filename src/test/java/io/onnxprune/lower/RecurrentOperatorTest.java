// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Model;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Operators with a state, with random options, compared with ONNX Runtime's kernels. */
@Tag("ort")
class RecurrentOperatorTest {
    private static final double TOLERANCE = 2e-5;
    private static final String CONTRIB = "com.microsoft";

    static IntStream seeds() {
        return IntStream.range(0, 60);
    }

    private static Attribute number(long value) {
        return new Attribute.Int(value);
    }

    @SafeVarargs
    private static <T> T any(Random random, T... options) {
        return options[random.nextInt(options.length)];
    }

    @ParameterizedTest
    @MethodSource("seeds")
    void linearAttention(int seed) {
        FusedGraph g = new FusedGraph(seed);
        Random random = g.random;
        String rule = any(random, "linear", "gated", "delta", "gated_delta");
        long states = any(random, 1L, 2L, 4L);
        long queries = any(random, 1L, 2L, 4L);
        long keys = any(random, 1L, states);
        long size = any(random, 4L, 8L);
        long valueSize = any(random, 4L, 6L);
        Map<String, Attribute> attributes = new LinkedHashMap<>();
        attributes.put("q_num_heads", number(queries));
        attributes.put("kv_num_heads", number(states));
        attributes.put("update_rule", new Attribute.Text(rule));
        if (random.nextBoolean()) {
            attributes.put("scale", new Attribute.Real(0.3f));
        }
        String unit = g.graph()
                .add("LpNormalization", List.of(g.operand(keys, size)), Map.of("axis", number(-1), "p", number(2)));
        List<String> operands = new ArrayList<>();
        operands.add(g.operand(queries * size));
        operands.add(g.graph().add("Reshape", unit, g.graph().ints(0, 0, keys * size)));
        operands.add(g.operand(states * valueSize));
        operands.add(random.nextBoolean() ? "" : first(g, states, size, valueSize));
        boolean gated = rule.startsWith("gated");
        String raw = g.operand(any(random, states, states * size));
        operands.add(gated ? g.graph().add("Neg", g.graph().add("Softplus", raw)) : "");
        operands.add(rule.endsWith("delta") ? g.graph().add("Sigmoid", g.operand(any(random, 1L, states))) : "");
        while (operands.get(operands.size() - 1).isEmpty()) {
            operands.remove(operands.size() - 1);
        }
        g.test(CONTRIB, "LinearAttention", operands, attributes, 3, 4);
        g.assertLowered(20, TOLERANCE);
    }

    /** The first token's values as a state of every row. */
    private static String first(FusedGraph g, long... shape) {
        String zero = g.graph().index(0);
        return g.graph().add("Gather", List.of(g.operand(shape), zero), Map.of("axis", number(1)));
    }

    /** Keys that are all the same are the worst case of the inverse. */
    @Test
    void equalKeysLoseNoDigits() {
        FusedGraph g = new FusedGraph(3);
        String one = g.graph().add("Mul", g.operand(4), g.graph().scalar(0));
        String keys = g.graph().add("Add", one, g.graph().scalar(0.5f));
        List<String> operands = new ArrayList<>(List.of(g.operand(4), keys, g.operand(4), "", ""));
        operands.add(g.graph().add("Sigmoid", g.operand(1)));
        Map<String, Attribute> attributes = new LinkedHashMap<>();
        attributes.put("q_num_heads", number(1));
        attributes.put("kv_num_heads", number(1));
        attributes.put("update_rule", new Attribute.Text("delta"));
        g.test(CONTRIB, "LinearAttention", operands, attributes, 3, 4);
        g.assertLowered(20, TOLERANCE);
    }

    @ParameterizedTest
    @MethodSource("seeds")
    void causalConvolution(int seed) {
        FusedGraph g = new FusedGraph(seed);
        Random random = g.random;
        long channels = 6;
        long taps = any(random, 2L, 3L, 4L);
        Map<String, Attribute> attributes = new LinkedHashMap<>();
        attributes.put("activation", new Attribute.Text(any(random, "none", "silu", "swish")));
        List<String> operands = new ArrayList<>();
        operands.add(g.transpose(g.operand(channels), 0, 2, 1));
        operands.add(g.weight(channels, 1, taps));
        operands.add(random.nextBoolean() ? g.weight(channels) : "");
        operands.add(random.nextBoolean() ? first(g, channels, taps - 1) : "");
        while (operands.get(operands.size() - 1).isEmpty()) {
            operands.remove(operands.size() - 1);
        }
        g.test(CONTRIB, "CausalConvWithState", operands, attributes, 3, 3);
        g.assertLowered(20, TOLERANCE);
    }

    @ParameterizedTest
    @MethodSource("seeds")
    void tensorScatter(int seed) {
        FusedGraph g = new FusedGraph(seed);
        Random random = g.random;
        boolean circular = random.nextBoolean();
        boolean flat = random.nextBoolean();
        long capacity = FusedGraph.LENGTH + 3;
        Map<String, Attribute> attributes = new LinkedHashMap<>();
        attributes.put("axis", number(flat ? 1 : any(random, -2, 2)));
        attributes.put("mode", new Attribute.Text(circular ? "circular" : "linear"));
        List<String> operands = new ArrayList<>();
        operands.add(flat ? first(g, capacity, 5) : first(g, 2, capacity, 5));
        operands.add(flat ? g.operand(5) : g.headFirst(2, 5));
        if (random.nextBoolean()) {
            String row = first(g, new long[0]);
            String positive = g.cast(
                    g.graph().add("Abs", g.graph().add("Mul", row, g.graph().scalar(3))), DType.INT64);
            operands.add(g.graph().add("Mod", positive, g.graph().index(circular ? capacity : 3)));
        }
        g.test("", "TensorScatter", operands, attributes, flat ? 3 : 4);
        Model lowered = g.assertLowered(24, 0);
        assertThat(lowered.graph().nodes()).noneMatch(node -> node.is("TensorScatter"));
    }
}
