// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Trace;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Bytes;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.GraphBuilder;
import io.onnxprune.ir.Graphs;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.Outputs;
import io.onnxprune.runtime.Session;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;

/**
 * A small graph whose gradients are compared with central differences along random directions. The trace sees it as a
 * decoder. Its values are computed from weights and from rows of weights selected by token, so that extents depend on
 * batch and length.
 */
final class GradientCheck {
    private static final int VOCABULARY = 11;
    /** Batch and length at run time: different from those of the trace, and including ones. */
    private static final int[][] SIZES = {{4, 7}, {1, 6}, {5, 1}};

    private final DType dtype;
    private final Random random;
    private final GraphBuilder builder = new GraphBuilder("v", Set.of("tokens", "logits"));
    private final Map<String, Tensor> weights = new LinkedHashMap<>();
    private final Set<String> constantNames = new LinkedHashSet<>();
    private Map<String, Attribute> attributes = Map.of();

    /**
     * Creates a graph in {@code dtype}: float64 where ONNX Runtime has the kernels, because differences lose digits.
     */
    GradientCheck(DType dtype, long seed) {
        this.dtype = dtype;
        this.random = new Random(seed);
        Map<String, Attribute> toFloat = Map.of("to", new Attribute.Int(DType.FLOAT.code()));
        String cast = builder.add("Cast", List.of("tokens"), toFloat);
        builder.add(Graphs.node("Unsqueeze", "logits", cast, builder.ints(-1)));
    }

    Random random() {
        return random;
    }

    GraphBuilder builder() {
        return builder;
    }

    /**
     * A weight with elements between 0.3 and 1.3 or their negatives, away from kinks at 0 and at integers above 1.5.
     */
    String weight(long... shape) {
        double[] values = new double[(int) Tensor.elements(shape)];
        for (int i = 0; i < values.length; i++) {
            values[i] = (0.3 + random.nextDouble()) * (random.nextBoolean() ? 1 : -1);
        }
        return weight(shape, values);
    }

    /** A weight with elements between 0.3 and 1.3. */
    String positive(long... shape) {
        double[] values = new double[(int) Tensor.elements(shape)];
        for (int i = 0; i < values.length; i++) {
            values[i] = 0.3 + random.nextDouble();
        }
        return weight(shape, values);
    }

    String weight(long[] shape, double... values) {
        String name = builder.constant(tensor(dtype, shape, values));
        weights.put(name, builder.initializers().get(name));
        return name;
    }

    /** A constant whose gradient is not requested. */
    String constant(double... values) {
        String name =
                builder.constant(tensor(dtype, values.length == 1 ? new long[0] : new long[] {values.length}, values));
        constantNames.add(name);
        return name;
    }

    /** A value [batch, length, extents...] whose rows all come from one weight. */
    String rows(long... extents) {
        return picked(weight(tableShape(extents)));
    }

    /** A value [batch, length, extents...] with positive elements, whose rows all come from one weight. */
    String positiveRows(long... extents) {
        return picked(positive(tableShape(extents)));
    }

    private static long[] tableShape(long... extents) {
        long[] shape = new long[extents.length + 1];
        shape[0] = VOCABULARY;
        System.arraycopy(extents, 0, shape, 1, extents.length);
        return shape;
    }

    private String picked(String table) {
        return builder.add("Gather", table, "tokens");
    }

    String ints(long... values) {
        return builder.ints(values);
    }

    /** Sets an attribute of the next node. */
    GradientCheck with(String key, Object value) {
        Map<String, Attribute> more = new LinkedHashMap<>(attributes);
        if (value instanceof Float real) {
            more.put(key, new Attribute.Real(real));
        } else if (value instanceof String text) {
            more.put(key, new Attribute.Text(text));
        } else if (value instanceof List<?> list) {
            more.put(
                    key,
                    new Attribute.Ints(list.stream()
                            .map(entry -> ((Number) entry).longValue())
                            .toList()));
        } else {
            more.put(key, new Attribute.Int(((Number) value).longValue()));
        }
        attributes = more;
        return this;
    }

    String node(String op, String... inputs) {
        return nodes(1, op, inputs).get(0);
    }

    List<String> nodes(int results, String op, String... inputs) {
        List<String> names = builder.add(op, List.of(inputs), attributes, results);
        attributes = Map.of();
        return names;
    }

    private Model model(List<String> results) {
        Graph graph = new Graph(
                "check",
                List.of(Graphs.value("tokens", DType.INT64, "batch", "length")),
                outputs(results, "logits"),
                List.of(),
                builder.initializers(),
                builder.nodes(),
                new byte[0]);
        return new Model(9, Map.of("", 20L), graph, Map.of(), false, Path.of("check.onnx"), new byte[0]);
    }

    private static List<ValueInfo> outputs(List<String> names, String... more) {
        List<String> all = new ArrayList<>(names);
        all.addAll(List.of(more));
        return all.stream()
                .map(name -> name.equals("logits")
                        ? Graphs.floats("logits", "batch", "length", 1)
                        : new ValueInfo(name, DType.UNDEFINED, null, new byte[0]))
                .toList();
    }

    /** Compares gradients with differences; every weight must have a gradient. */
    void verify(String... results) {
        Map<String, String> gradients = verifyReached(results);
        assertThat(gradients.keySet()).containsExactlyInAnyOrderElementsOf(weights.keySet());
    }

    /** Compares gradients with differences; weights without a gradient must not change the results. */
    Map<String, String> verifyReached(String... results) {
        GraphBuilder backward = backwardBuilder();
        Map<String, String> gradients = gradients(backward, results);
        List<String> forward = List.of(results);
        try (Session values = TestModels.runtime().open(forward(forward), false);
                Session slopes = TestModels.runtime().open(differentiated(forward, gradients, backward), false)) {
            for (int[] size : SIZES) {
                compare(values, slopes, forward, gradients, size);
            }
        }
        return gradients;
    }

    private GraphBuilder backwardBuilder() {
        Set<String> names = new LinkedHashSet<>(builder.initializers().keySet());
        builder.nodes().forEach(node -> names.addAll(node.outputs()));
        names.add("tokens");
        return new GraphBuilder("g", names);
    }

    /** The names of the gradients by weight. */
    Map<String, String> gradients(GraphBuilder into, String... results) {
        Program program = Program.of(model(List.of(results)));
        Map<Value, String> seeds = new LinkedHashMap<>();
        for (Value output : program.outputs()) {
            if (!output.name().equals("logits")) {
                seeds.put(output, "seed_" + output.name());
            }
        }
        List<Value> wanted = weights.keySet().stream()
                .map(name -> program.initializers().get(name))
                .toList();
        Trace trace = Trace.of(program, TestModels.runtime(), Log.NONE);
        Map<String, String> gradients = new LinkedHashMap<>();
        Backward.append(program.ops(), trace, seeds, wanted, into)
                .forEach((value, name) -> gradients.put(value.name(), name));
        return gradients;
    }

    /** The names of the gradients by weight. */
    Map<String, String> gradients(String... results) {
        return gradients(backwardBuilder(), results);
    }

    /** The graph with weights as inputs. */
    private Model forward(List<String> results) {
        return withInputs(results, List.of(), builder.initializers(), builder.nodes());
    }

    /** The graph with its gradients; weights and seeds are inputs. */
    private Model differentiated(List<String> results, Map<String, String> gradients, GraphBuilder backward) {
        Map<String, Tensor> initializers = new LinkedHashMap<>(builder.initializers());
        initializers.putAll(backward.initializers());
        List<Node> nodes = new ArrayList<>(builder.nodes());
        nodes.addAll(backward.nodes());
        return withInputs(List.copyOf(new LinkedHashSet<>(gradients.values())), results, initializers, nodes);
    }

    private Model withInputs(
            List<String> outputs, List<String> seeded, Map<String, Tensor> initializers, List<Node> nodes) {
        List<ValueInfo> inputs = new ArrayList<>(List.of(Graphs.value("tokens", DType.INT64, "batch", "length")));
        weights.forEach((name, tensor) -> inputs.add(new ValueInfo(
                name,
                tensor.dtype(),
                Arrays.stream(tensor.shape()).mapToObj(ValueInfo.Extent::of).toList(),
                new byte[0])));
        seeded.forEach(name -> inputs.add(new ValueInfo("seed_" + name, dtype, null, new byte[0])));
        Map<String, Tensor> constants = new LinkedHashMap<>(initializers);
        constants.keySet().removeAll(weights.keySet());
        Model model = model(List.of());
        return model.withGraph(
                model.graph().withNodes(nodes).withInitializers(constants).withInterface(inputs, outputs(outputs)));
    }

    private void compare(
            Session values, Session slopes, List<String> results, Map<String, String> gradients, int[] size) {
        Map<String, HostTensor> feeds = new LinkedHashMap<>();
        long[] tokens = random.longs((long) size[0] * size[1], 0, VOCABULARY).toArray();
        feeds.put("tokens", HostTensor.ofInt64(new long[] {size[0], size[1]}, tokens));
        weights.forEach((name, tensor) -> feeds.put(name, host(dtype, tensor.shape(), values(tensor))));
        Map<String, double[]> seeds = new LinkedHashMap<>();
        Map<String, HostTensor> seedFeeds = new LinkedHashMap<>();
        try (Outputs outputs = values.run(feeds, results)) {
            for (String name : results) {
                double[] seed = direction((int) outputs.tensor(name).elements());
                seeds.put(name, seed);
                seedFeeds.put("seed_" + name, host(dtype, outputs.shape(name), seed));
            }
        }
        seedFeeds.putAll(feeds);
        Map<String, double[]> computed = new LinkedHashMap<>();
        try (Outputs outputs = slopes.run(seedFeeds, new LinkedHashSet<>(gradients.values()))) {
            gradients.forEach((weight, name) -> {
                assertThat(outputs.shape(name))
                        .as(weight)
                        .isEqualTo(weights.get(weight).shape());
                assertThat(outputs.dtype(name)).as(weight).isEqualTo(dtype);
                computed.put(weight, doubles(outputs.tensor(name)));
            });
        }
        for (String weight : weights.keySet()) {
            compare(values, feeds, seeds, weight, computed.get(weight), size);
        }
    }

    private void compare(
            Session values,
            Map<String, HostTensor> feeds,
            Map<String, double[]> seeds,
            String weight,
            double[] gradient,
            int[] size) {
        double step = dtype == DType.DOUBLE ? 1e-5 : 1e-2;
        double tolerance = dtype == DType.DOUBLE ? 1e-6 : 1e-2;
        double[] start = values(weights.get(weight));
        double[] direction = direction(start.length);
        double ahead = loss(values, feeds, weight, moved(start, direction, step), seeds);
        double behind = loss(values, feeds, weight, moved(start, direction, -step), seeds);
        feeds.put(weight, host(dtype, weights.get(weight).shape(), start));
        double expected = (ahead - behind) / (2 * step);
        double computed = gradient == null ? 0 : dot(gradient, direction);
        double scale = 1 + (gradient == null ? 0 : Math.sqrt(dot(gradient, gradient) * dot(direction, direction)));
        assertThat(computed)
                .as("along a direction of %s at %s", weight, Arrays.toString(size))
                .isCloseTo(expected, within(tolerance * scale));
    }

    private double loss(
            Session session,
            Map<String, HostTensor> feeds,
            String weight,
            double[] values,
            Map<String, double[]> seeds) {
        feeds.put(weight, host(dtype, weights.get(weight).shape(), values));
        double loss = 0;
        try (Outputs outputs = session.run(feeds, seeds.keySet())) {
            for (Map.Entry<String, double[]> seed : seeds.entrySet()) {
                loss += dot(doubles(outputs.tensor(seed.getKey())), seed.getValue());
            }
        }
        return loss;
    }

    private double[] direction(int size) {
        return random.doubles(size, -1, 1).toArray();
    }

    private static double[] moved(double[] values, double[] direction, double step) {
        double[] moved = values.clone();
        for (int i = 0; i < moved.length; i++) {
            moved[i] += step * direction[i];
        }
        return moved;
    }

    private static double dot(double[] a, double[] b) {
        double dot = 0;
        for (int i = 0; i < a.length; i++) {
            dot += a[i] * b[i];
        }
        return dot;
    }

    private static Tensor tensor(DType dtype, long[] shape, double... values) {
        return Tensor.of(dtype, shape, Bytes.of(bytes(dtype, values)));
    }

    private static HostTensor host(DType dtype, long[] shape, double[] values) {
        return new HostTensor(dtype, shape, bytes(dtype, values));
    }

    private static ByteBuffer bytes(DType dtype, double[] values) {
        ByteBuffer bytes = ByteBuffer.allocate((int) dtype.bytes(values.length)).order(ByteOrder.LITTLE_ENDIAN);
        for (double value : values) {
            if (dtype == DType.DOUBLE) {
                bytes.putDouble(value);
            } else {
                bytes.putFloat((float) value);
            }
        }
        return bytes.flip();
    }

    private static double[] values(Tensor tensor) {
        return doubles(new HostTensor(
                tensor.dtype(), tensor.shape(), ByteBuffer.wrap(tensor.bytes().toArray())));
    }

    private static double[] doubles(HostTensor tensor) {
        double[] values = new double[(int) tensor.elements()];
        for (int i = 0; i < values.length; i++) {
            values[i] = tensor.dtype() == DType.DOUBLE
                    ? tensor.bytes().getDouble(8 * i)
                    : tensor.bytes().getFloat(4 * i);
        }
        return values;
    }
}
