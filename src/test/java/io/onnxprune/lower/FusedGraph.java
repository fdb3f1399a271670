// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.GraphBuilder;
import io.onnxprune.ir.Graphs;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.Outputs;
import io.onnxprune.runtime.Session;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;

/**
 * A small decoder around one operator. Operands are embeddings of tokens, so they are random and have a dynamic batch
 * and length. The operator's results are outputs, which must be equal for ONNX Runtime's kernel and the decomposition.
 */
final class FusedGraph {
    static final int BATCH = 2;
    static final int LENGTH = 7;
    private static final int VOCABULARY = 32;

    final Random random;
    private final GraphBuilder graph = new GraphBuilder("v", Set.of("input_ids", "attention_mask", "logits"));
    private final List<ValueInfo> outputs = new ArrayList<>();
    private String tested;
    private String options = "";

    FusedGraph(long seed) {
        this.random = new Random(seed);
    }

    GraphBuilder graph() {
        return graph;
    }

    /** Random float32 weights with mean 0. */
    String weight(long... shape) {
        return graph.constant(numbers(1, shape));
    }

    Tensor numbers(double deviation, long... shape) {
        float[] values = new float[(int) Tensor.elements(shape)];
        for (int i = 0; i < values.length; i++) {
            values[i] = (float) (deviation * random.nextGaussian());
        }
        return Tensor.ofFloats(DType.FLOAT, shape, values);
    }

    /** Random bytes. */
    String bytes(DType dtype, long... shape) {
        byte[] values = new byte[(int) dtype.bytes(Tensor.elements(shape))];
        random.nextBytes(values);
        return graph.constant(Tensor.of(dtype, shape, io.onnxprune.ir.Bytes.of(java.nio.ByteBuffer.wrap(values))));
    }

    String tokens() {
        return "input_ids";
    }

    /** Random values, {@code [batch, length, tail..]}. */
    String operand(long... tail) {
        long[] shape = new long[tail.length + 1];
        shape[0] = VOCABULARY;
        System.arraycopy(tail, 0, shape, 1, tail.length);
        return graph.add("Gather", weight(shape), "input_ids");
    }

    /** Random values, {@code [batch, heads, length, size]}. */
    String headFirst(long heads, long size) {
        return transpose(operand(heads, size), 0, 2, 1, 3);
    }

    String transpose(String x, long... permutation) {
        return graph.add("Transpose", List.of(x), Map.of("perm", RewriteContext.ints(permutation)));
    }

    String cast(String x, DType dtype) {
        return graph.add("Cast", List.of(x), Map.of("to", new Attribute.Int(dtype.code())));
    }

    /** An additive bias for scores, {@code [batch or 1, heads or 1, length, length]}. */
    String bias(boolean everyRow, long heads) {
        String product = graph.add("MatMul", operand(3), transpose(operand(3), 0, 2, 1));
        String rows = everyRow ? product : graph.add("Slice", product, graph.ints(0), graph.ints(1), graph.ints(0));
        return graph.add("Mul", graph.add("Unsqueeze", rows, graph.ints(1)), weight(heads, 1, 1));
    }

    /** The length of rows as an int32 scalar. */
    String length() {
        String shape = graph.add("Shape", "input_ids");
        return cast(graph.add("Gather", shape, graph.index(1)), DType.INT32);
    }

    /** The number of tokens of every row, {@code [batch]} of int32, less {@code subtracted}. */
    String lengths(long subtracted) {
        String ones = cast(graph.add("GreaterOrEqual", "input_ids", graph.index(0)), DType.INT64);
        String sum = graph.add("ReduceSum", List.of(ones, graph.ints(1)), Map.of("keepdims", new Attribute.Int(0)));
        return cast(graph.add("Sub", sum, graph.index(subtracted)), DType.INT32);
    }

    /** 0 for some tokens and 1 for the others, {@code [batch, length]} of int32. */
    String mask() {
        return cast(graph.add("GreaterOrEqual", "input_ids", graph.index(VOCABULARY / 4)), DType.INT32);
    }

    /** Position ids, {@code [batch, length]}. */
    String positions() {
        String range = graph.add("Range", graph.index(0), cast(length(), DType.INT64), graph.index(1));
        return graph.add("Expand", range, graph.add("Shape", "input_ids"));
    }

    /** Applies the operator under test. Its results become graph outputs, except those named "". */
    List<String> test(
            String domain, String operator, List<String> operands, Map<String, Attribute> attributes, int... ranks) {
        List<String> results = new ArrayList<>();
        for (int i = 0; i < ranks.length; i++) {
            results.add(ranks[i] < 0 ? "" : "result" + i);
        }
        graph.add(new Node("tested", domain, operator, operands, results, attributes, new byte[0]));
        tested = operator;
        options = " of " + operator + attributes + " on "
                + operands.stream().map(name -> name.isEmpty() ? "-" : "x").toList();
        for (int i = 0; i < ranks.length; i++) {
            if (ranks[i] >= 0) {
                outputs.add(new ValueInfo("result" + i, DType.UNDEFINED, null, new byte[0]));
            }
        }
        return results;
    }

    /** The model of the default operator set of version {@code opset}. */
    Model model(long opset) {
        Node logits = Node.of("logits", "Identity", List.of(operand(3)), List.of("logits"), Map.of());
        List<Node> nodes = new ArrayList<>(graph.nodes());
        nodes.add(logits);
        List<ValueInfo> declared = new ArrayList<>(List.of(Graphs.floats("logits", "batch", "length", 3)));
        declared.addAll(outputs);
        Graph main = new Graph(
                "main",
                List.of(Graphs.value("input_ids", DType.INT64, "batch", "length")),
                declared,
                List.of(),
                graph.initializers(),
                nodes,
                new byte[0]);
        Map<String, Long> opsets = new LinkedHashMap<>(Map.of("", opset, "com.microsoft", 1L));
        return new Model(opset < 13 ? 6 : 10, opsets, main, Map.of(), false, Path.of("by-hand.onnx"), new byte[0]);
    }

    /** Checks that the operator was decomposed and that all results are equal to {@code tolerance} of their scale. */
    Model assertLowered(long opset, double tolerance) {
        Model original = model(opset);
        Model lowered = Lowering.lower(original, TestModels.runtime(), LENGTH, Log.NONE);
        boolean contrib = original.graph().nodes().stream()
                .anyMatch(node -> !node.domain().isEmpty());
        assertThat(lowered.graph().nodes())
                .noneMatch(node -> !node.domain().isEmpty() || contrib && node.is(tested) && !node.is("Gelu"));
        assertSameResults(original, lowered, tolerance);
        return lowered;
    }

    void assertSameResults(Model original, Model lowered, double tolerance) {
        Map<String, float[]> expected = run(original);
        Map<String, float[]> actual = run(lowered);
        assertThat(actual.keySet()).isEqualTo(expected.keySet());
        expected.forEach((name, values) -> {
            double scale = 1e-3;
            double difference = 0;
            float[] other = actual.get(name);
            assertThat(other).as(name + options).hasSameSizeAs(values);
            for (int i = 0; i < values.length; i++) {
                boolean both = Float.compare(values[i], other[i]) == 0
                        || values[i] < -1e30 && other[i] < -1e30; // hidden scores, however low
                scale = both ? scale : Math.max(scale, Math.abs(values[i]));
                difference = both ? difference : Math.max(difference, Math.abs(other[i] - values[i]));
                assertThat(Double.isNaN(difference))
                        .as(name + options + " is a number")
                        .isFalse();
            }
            assertThat(difference).as(name + options).isLessThanOrEqualTo(tolerance * scale);
        });
    }

    private Map<String, float[]> run(Model model) {
        Random tokens = new Random(5);
        long[] ids = tokens.longs((long) BATCH * LENGTH, 0, VOCABULARY).toArray();
        Map<String, HostTensor> feeds = Map.of("input_ids", HostTensor.ofInt64(new long[] {BATCH, LENGTH}, ids));
        List<String> names =
                model.graph().outputs().stream().map(ValueInfo::name).toList();
        Map<String, float[]> results = new LinkedHashMap<>();
        try (Session session = TestModels.runtime().open(model, false);
                Outputs run = session.run(feeds, names)) {
            for (String name : names) {
                HostTensor tensor = run.tensor(name);
                float[] shape = new float[tensor.shape().length];
                for (int i = 0; i < shape.length; i++) {
                    shape[i] = tensor.shape()[i];
                }
                results.put(name + " shape", shape);
                results.put(name, floats(tensor));
            }
        }
        return results;
    }

    private static float[] floats(HostTensor tensor) {
        if (tensor.dtype().isFloat()) {
            return tensor.toFloats();
        }
        long[] integers = tensor.toLongs();
        float[] values = new float[integers.length];
        for (int i = 0; i < values.length; i++) {
            values[i] = integers[i];
        }
        return values;
    }
}
