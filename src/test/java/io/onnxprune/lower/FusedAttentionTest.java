// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Fused attention with random options, compared with ONNX Runtime's kernels. */
@Tag("ort")
class FusedAttentionTest {
    private static final double TOLERANCE = 1e-5;
    private static final String CONTRIB = "com.microsoft";

    static IntStream seeds() {
        return IntStream.range(0, 40);
    }

    private static Attribute number(long value) {
        return new Attribute.Int(value);
    }

    @SafeVarargs
    private static <T> T any(Random random, T... options) {
        return options[random.nextInt(options.length)];
    }

    private static void dropTrailingEmpty(List<String> operands) {
        while (operands.get(operands.size() - 1).isEmpty()) {
            operands.remove(operands.size() - 1);
        }
    }

    @ParameterizedTest
    @MethodSource("seeds")
    void groupQueryAttention(int seed) {
        FusedGraph g = new FusedGraph(seed);
        Random random = g.random;
        long count = 4;
        long keyCount = any(random, 1, 2, 4);
        long size = 16;
        Map<String, Attribute> attributes = new LinkedHashMap<>();
        attributes.put("num_heads", number(count));
        attributes.put("kv_num_heads", number(keyCount));
        List<String> operands = new ArrayList<>();
        if (random.nextBoolean()) {
            operands.addAll(List.of(g.operand((count + 2 * keyCount) * size), "", ""));
        } else {
            operands.addAll(List.of(g.operand(count * size), g.operand(keyCount * size), g.operand(keyCount * size)));
        }
        operands.addAll(List.of("", "", g.lengths(1), g.length()));
        boolean rotary = random.nextBoolean();
        if (rotary) {
            attributes.put("do_rotary", number(1));
            attributes.put("rotary_interleaved", number(random.nextInt(2)));
        }
        long half = size / 2;
        operands.add(rotary ? g.weight(20, half) : "");
        operands.add(rotary ? g.weight(20, half) : "");
        operands.add(rotary && random.nextBoolean() ? g.positions() : "");
        operands.add(random.nextInt(3) > 0 ? "" : g.bias(random.nextBoolean(), any(random, 1L, count)));
        switch (random.nextInt(3)) {
            case 0 -> operands.add(g.weight(count));
            case 1 -> attributes.put("smooth_softmax", number(1));
            default -> {}
        }
        if (random.nextBoolean()) {
            attributes.put("softcap", new Attribute.Real(2.5f));
        }
        if (random.nextBoolean()) {
            attributes.put("local_window_size", number(any(random, 1, 3, 50)));
        }
        if (random.nextBoolean()) {
            attributes.put("scale", new Attribute.Real(0.3f));
        }
        if (random.nextBoolean()) {
            while (operands.size() < 14) {
                operands.add("");
            }
            operands.addAll(List.of(g.weight(size), g.weight(size)));
            attributes.put("qk_norm_epsilon", new Attribute.Real(0.01f));
        }
        dropTrailingEmpty(operands);
        g.test(CONTRIB, "GroupQueryAttention", operands, attributes, 3, 4, 4);
        g.assertLowered(20, TOLERANCE);
    }

    @ParameterizedTest
    @MethodSource("seeds")
    void multiHeadAttention(int seed) {
        FusedGraph g = new FusedGraph(seed);
        Random random = g.random;
        long count = 3;
        long size = 8;
        long width = count * size;
        long valueSize = size;
        Map<String, Attribute> attributes = new LinkedHashMap<>();
        attributes.put("num_heads", number(count));
        List<String> operands = new ArrayList<>();
        int form = random.nextInt(4);
        switch (form) {
            case 0 -> operands.addAll(List.of(g.operand(count, 3, size), "", ""));
            case 1 -> operands.addAll(List.of(g.operand(width), g.operand(count, 2, size), ""));
            case 2 -> operands.addAll(List.of(g.operand(width), g.headFirst(count, size), g.headFirst(count, size)));
            default -> {
                valueSize = any(random, 8L, 12L);
                operands.addAll(List.of(g.operand(width), g.operand(width), g.operand(count * valueSize)));
            }
        }
        // The kernel takes a bias only for projections without a head axis.
        operands.add(form == 3 && random.nextBoolean() ? g.weight(2 * width + count * valueSize) : "");
        operands.add(any(random, "", padding(g, random.nextInt(3))));
        operands.add(random.nextBoolean() ? g.bias(random.nextBoolean(), any(random, 1L, count)) : "");
        attributes.put("unidirectional", number(random.nextInt(2)));
        if (random.nextBoolean()) {
            attributes.put("scale", new Attribute.Real(0.3f));
        }
        if (random.nextBoolean()) {
            attributes.put("mask_filter_value", new Attribute.Real(-50));
        }
        dropTrailingEmpty(operands);
        int[] results = form == 3 ? new int[] {3, 4, 4} : new int[] {3};
        g.test(CONTRIB, "MultiHeadAttention", operands, attributes, results);
        g.assertLowered(20, TOLERANCE);
    }

    /** A padding mask: of every key, of every query and key, or lengths. */
    private static String padding(FusedGraph g, int form) {
        return switch (form) {
            case 0 -> g.mask();
            case 1 -> {
                String keys = g.graph().add("Unsqueeze", g.mask(), g.graph().ints(1));
                String queries = g.graph().add("Unsqueeze", g.mask(), g.graph().ints(2));
                yield g.cast(g.graph().add("Or", g.cast(keys, DType.BOOL), g.cast(queries, DType.BOOL)), DType.INT32);
            }
            default -> g.lengths(2);
        };
    }

    @ParameterizedTest
    @MethodSource("seeds")
    void mergedAttention(int seed) {
        FusedGraph g = new FusedGraph(seed);
        Random random = g.random;
        long count = 2;
        long size = 6;
        long valueSize = any(random, 6L, 10L);
        long width = 2 * count * size + count * valueSize;
        Map<String, Attribute> attributes = new LinkedHashMap<>();
        attributes.put("num_heads", number(count));
        if (valueSize != size || random.nextBoolean()) {
            attributes.put("qkv_hidden_sizes", RewriteContext.ints(count * size, count * size, count * valueSize));
        }
        List<String> operands = new ArrayList<>();
        operands.add(g.operand(10));
        operands.add(g.graph().constant(g.numbers(0.3, 10, width)));
        operands.add(g.weight(width)); // The kernel crashes without one.
        int form = random.nextInt(6);
        operands.add(
                switch (form) {
                    case 0, 1, 2 -> padding(g, form);
                    case 3 -> lengthsAndStarts(g);
                    case 4 -> cumulated(g);
                    default -> "";
                });
        operands.add("");
        operands.add(random.nextBoolean() ? g.bias(random.nextBoolean(), any(random, 1L, count)) : "");
        attributes.put("unidirectional", number(random.nextInt(2)));
        if (random.nextBoolean()) {
            attributes.put("scale", new Attribute.Real(0.3f));
        }
        dropTrailingEmpty(operands);
        boolean present = valueSize == size && random.nextBoolean();
        g.test(CONTRIB, "Attention", operands, attributes, present ? new int[] {3, 5} : new int[] {3});
        g.assertLowered(20, TOLERANCE);
    }

    private static String lengthsAndStarts(FusedGraph g) {
        String ones = g.graph().add("Sub", g.lengths(1), g.lengths(2));
        return g.graph().add("Concat", List.of(g.lengths(1), ones), Map.of("axis", number(0)));
    }

    private static String cumulated(FusedGraph g) {
        String lengths = g.lengths(3);
        String more = g.cast(g.graph().ints(0, 0), DType.INT32);
        return g.graph().add("Concat", List.of(lengths, lengths, lengths, more), Map.of("axis", number(0)));
    }

    @ParameterizedTest
    @MethodSource("seeds")
    void onnxAttention(int seed) {
        FusedGraph g = new FusedGraph(seed);
        Random random = g.random;
        long count = 4;
        long keyCount = any(random, 1, 2, 4);
        long size = 6;
        long valueSize = any(random, 6L, 10L);
        boolean flat = random.nextBoolean();
        Map<String, Attribute> attributes = new LinkedHashMap<>();
        List<String> operands = new ArrayList<>();
        if (flat) {
            attributes.put("q_num_heads", number(count));
            attributes.put("kv_num_heads", number(keyCount));
            operands.addAll(
                    List.of(g.operand(count * size), g.operand(keyCount * size), g.operand(keyCount * valueSize)));
        } else {
            operands.addAll(
                    List.of(g.headFirst(count, size), g.headFirst(keyCount, size), g.headFirst(keyCount, valueSize)));
        }
        boolean causal = random.nextBoolean();
        attributes.put("is_causal", number(causal ? 1 : 0));
        int form = random.nextInt(3);
        if (form > 0) {
            String bias = g.bias(true, keyCount == count ? any(random, 1L, count) : 1);
            operands.add(form == 1 ? bias : visible(g, bias));
        }
        // This kernel follows the first version of the specification, in which the mask is applied before the softcap.
        // Without a softcap or without a mask both versions agree.
        boolean masked = causal || form > 0;
        if (!masked && random.nextBoolean()) {
            attributes.put("softcap", new Attribute.Real(1.5f));
        }
        if (random.nextBoolean()) {
            attributes.put("scale", new Attribute.Real(0.3f));
        }
        attributes.put("qk_matmul_output_mode", number(masked ? any(random, 0, 3) : random.nextInt(4)));
        int kept = random.nextBoolean() ? 4 : -1;
        g.test("", "Attention", operands, attributes, flat ? 3 : 4, 4, 4, kept);
        g.assertLowered(23, TOLERANCE);
    }

    /** A mask that hides some keys, but never a query's own key. */
    private static String visible(FusedGraph g, String bias) {
        String range = g.graph()
                .add(
                        "Range",
                        g.graph().index(0),
                        g.cast(g.length(), DType.INT64),
                        g.graph().index(1));
        String own = g.graph()
                .add("Equal", range, g.graph().add("Unsqueeze", range, g.graph().ints(1)));
        return g.graph().add("Or", own, g.graph().add("Greater", bias, g.graph().scalar(0)));
    }
}
