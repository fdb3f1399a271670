// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import io.onnxprune.calibrate.LoweredLinear;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.GraphBuilder;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.Widening;
import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;

/**
 * A lowered model with trainable parameters: low-rank adapters beside its linear layers, or initializers of its own.
 *
 * @param adapters adapters of the linear layers; empty when the model's own weights are trained
 * @param parameters initial values of the trainable parameters by name, float32: initializers of {@code model}
 */
record Trainable(Model model, List<Adapter> adapters, Map<String, Tensor> parameters) {
    static final String PREFIX = "onnx_prune_adapter_";
    /** Name of the scalar that varies the dropout from step to step. */
    static final String DROPOUT_SEED = PREFIX + "dropout_seed";

    private static final float SPREAD = 4096;

    /**
     * The adapter of a linear layer.
     *
     * @param down name of A, [n, r]
     * @param up name of B, [r, out]
     */
    record Adapter(LoweredLinear linear, String down, String up) {}

    /**
     * Adds low-rank adapters (LoRA, Hu et al., arXiv 2106.09685): a linear layer y = x·W becomes y + (α/r)·(x·A)·B,
     * with W frozen. A is initialised as in the paper's code, uniformly in ±1/√n, and B with zeros, so that the output
     * does not change at first.
     *
     * @param lowered the model
     * @param linears linear layers that get an adapter
     * @param rank r
     * @param alpha α
     * @param dropout share of the adapters' inputs that are zeroed in a training step, less than 1; 0 for the
     *     evaluation
     * @param seed seed of the initial values
     */
    static Trainable adapters(
            Model lowered, List<LoweredLinear> linears, int rank, double alpha, double dropout, long seed) {
        GraphBuilder builder = new GraphBuilder(PREFIX, GraphBuilder.names(lowered.graph()));
        Map<String, Tensor> parameters = new LinkedHashMap<>();
        Map<String, Adapter> byOutput = new LinkedHashMap<>();
        Random random = new Random(seed);
        Scaling scaling = new Scaling(alpha / rank, dropout);
        for (LoweredLinear linear : linears) {
            String name = PREFIX + linear.weight();
            Adapter adapter = new Adapter(linear, name + ".A", name + ".B");
            int n = linear.input().width();
            parameters.put(adapter.down, uniform(random, n, rank, 1 / Math.sqrt(n)));
            parameters.put(adapter.up, uniform(random, rank, linear.output().width(), 0));
            byOutput.put(linear.output().value(), adapter);
        }
        List<Node> nodes = new ArrayList<>();
        for (Node node : lowered.graph().nodes()) {
            Adapter adapter = node.outputs().size() == 1 ? byOutput.get(node.output(0)) : null;
            if (adapter == null) {
                nodes.add(node);
                continue;
            }
            String frozen = builder.freshName();
            nodes.add(node.withOutputs(List.of(frozen)));
            int start = builder.nodes().size();
            Tensor weight = lowered.graph().initializers().get(adapter.linear.weight());
            // A computed weight, such as a dequantised one, is float32 in a lowered model.
            DType dtype = weight != null && weight.dtype() == DType.DOUBLE ? DType.DOUBLE : DType.FLOAT;
            adapt(node.input(0), frozen, adapter, scaling, dtype, builder);
            nodes.addAll(builder.nodes().subList(start, builder.nodes().size()));
        }
        Map<String, Tensor> initializers = new LinkedHashMap<>(lowered.graph().initializers());
        initializers.putAll(builder.initializers());
        initializers.putAll(parameters);
        if (dropout > 0) {
            initializers.put(DROPOUT_SEED, Tensor.ofFloats(DType.FLOAT, new long[0], 0.5f));
        }
        Graph graph = lowered.graph().withNodes(nodes).withInitializers(initializers);
        return new Trainable(lowered.withGraph(graph), List.copyOf(byOutput.values()), parameters);
    }

    /** Makes initializers of the model itself trainable, in float32. */
    static Trainable weights(Model lowered, Collection<String> names) {
        Map<String, Tensor> parameters = new LinkedHashMap<>();
        names.forEach(name -> parameters.put(
                name, Widening.widen(lowered.graph().initializers().get(name))));
        Map<String, Tensor> initializers = new LinkedHashMap<>(lowered.graph().initializers());
        initializers.putAll(parameters);
        return new Trainable(lowered.withGraph(lowered.graph().withInitializers(initializers)), List.of(), parameters);
    }

    /** A copy with other values of the parameters. */
    Trainable with(Map<String, Tensor> contents) {
        Map<String, Tensor> initializers = new LinkedHashMap<>(model.graph().initializers());
        initializers.putAll(contents);
        return new Trainable(model.withGraph(model.graph().withInitializers(initializers)), adapters, contents);
    }

    /** Whether the model has dropout. */
    boolean hasDropout() {
        return model.graph().initializers().containsKey(DROPOUT_SEED);
    }

    /** The factor of an adapter's output, α/r, and the share of its inputs that is dropped. */
    private record Scaling(double factor, double dropout) {}

    private static void adapt(
            String x, String frozen, Adapter adapter, Scaling scaling, DType dtype, GraphBuilder builder) {
        String dropped = scaling.dropout > 0 ? withDropout(x, adapter, scaling.dropout, dtype, builder) : x;
        String inner = builder.add("MatMul", dropped, cast(builder, adapter.down, dtype));
        String scaled = builder.add("Mul", inner, cast(builder, builder.scalar((float) scaling.factor), dtype));
        String change = builder.add("MatMul", scaled, cast(builder, adapter.up, dtype));
        String output = adapter.linear.output().value();
        builder.add(Node.of(builder.freshName(), "Add", List.of(frozen, change), List.of(output), Map.of()));
    }

    /** A float32 value unchanged, or cast to float64 beside float64 values. */
    private static String cast(GraphBuilder builder, String value, DType dtype) {
        return dtype == DType.FLOAT
                ? value
                : builder.add("Cast", List.of(value), Map.of("to", new Attribute.Int(dtype.code())));
    }

    /**
     * x with dropout. The zeros depend only on the step, the position and the channel, so that a resumed training
     * drops the same elements.
     */
    private static String withDropout(String x, Adapter adapter, double share, DType dtype, GraphBuilder builder) {
        Random random = new Random(adapter.down.hashCode());
        int n = adapter.linear.input().width();
        float[] channels = new float[n];
        for (int i = 0; i < n; i++) {
            channels[i] = SPREAD * random.nextFloat();
        }
        Attribute last = new Attribute.Int(-1);
        String leading = builder.add("Shape", List.of(x), Map.of("end", last));
        String count = builder.add("ReduceProd", List.of(leading), Map.of("keepdims", new Attribute.Int(0)));
        String flatPositions = builder.add("Range", builder.index(0), count, builder.index(1));
        String positionGrid = builder.add(
                "Reshape",
                flatPositions,
                builder.add("Concat", List.of(leading, builder.ints(1)), Map.of("axis", new Attribute.Int(0))));
        String positions =
                builder.add("Cast", List.of(positionGrid), Map.of("to", new Attribute.Int(DType.DOUBLE.code())));
        String step = builder.add("Cast", List.of(DROPOUT_SEED), Map.of("to", new Attribute.Int(DType.DOUBLE.code())));
        String mixed = builder.add(
                "Add",
                builder.add("Mul", positions, real(builder, 12.9898)),
                builder.add("Mul", step, real(builder, 78.233)));
        String position = fraction(builder, builder.add("Mul", builder.add("Sin", mixed), real(builder, 43758.5453)));
        String positionNoise =
                builder.add("Cast", List.of(position), Map.of("to", new Attribute.Int(DType.FLOAT.code())));
        String noise = fraction(
                builder,
                builder.add(
                        "Mul",
                        positionNoise,
                        builder.constant(Tensor.ofFloats(DType.FLOAT, new long[] {n}, channels))));
        String kept = builder.add("GreaterOrEqual", noise, builder.scalar((float) share));
        String factor = builder.add("Where", kept, builder.scalar((float) (1 / (1 - share))), builder.scalar(0));
        return builder.add("Mul", x, cast(builder, factor, dtype));
    }

    private static String real(GraphBuilder builder, double value) {
        return builder.add(
                "Cast", List.of(builder.scalar((float) value)), Map.of("to", new Attribute.Int(DType.DOUBLE.code())));
    }

    private static String fraction(GraphBuilder builder, String value) {
        return builder.add("Sub", value, builder.add("Floor", value));
    }

    private static Tensor uniform(Random random, int rows, int columns, double bound) {
        float[] values = new float[rows * columns];
        for (int i = 0; bound > 0 && i < values.length; i++) {
            values[i] = (float) (bound * (2 * random.nextDouble() - 1));
        }
        return Tensor.ofFloats(DType.FLOAT, new long[] {rows, columns}, values);
    }
}
