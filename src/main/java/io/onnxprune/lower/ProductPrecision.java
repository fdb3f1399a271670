// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.dims.Trace;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Bytes;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Floats;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.GraphBuilder;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.Widening;
import io.onnxprune.runtime.RuntimeOptions;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * Computes the float32 matrix products of a graph in a 16-bit type:
 *
 * <pre>
 * Y = MatMul(A, B)          Y = Cast(MatMul(Cast(A), Cast(B)))
 * Y = Gemm(A, B, C)         Y = Cast(Gemm(Cast(A), Cast(B))) + C
 * </pre>
 *
 * <p>A weight that is stored in that type is used as it is, and one that is stored in another type is converted once.
 *
 * <p>The CPU provider has no such products: it lacks the kernels for bfloat16, and runs float16 as float32 without
 * rounding. There, products are float32, and their operands and results are rounded to the type. This costs time; it
 * shows what the type costs in agreement.
 */
public final class ProductPrecision {
    private static final String PREFIX = "onnx_prune_precision_";

    private final Graph graph;
    private final DType type;
    private final boolean multiplies;
    private final GraphBuilder builder;
    private final Map<String, Node> producers = new HashMap<>();
    private final Map<String, DType> types;
    private final Map<String, String> rounded = new HashMap<>();
    private final Map<String, String> widened = new HashMap<>();

    private ProductPrecision(Graph graph, Map<String, DType> known, DType type, boolean multiplies) {
        this.graph = graph;
        this.type = type;
        this.multiplies = multiplies;
        this.builder = new GraphBuilder(PREFIX, GraphBuilder.names(graph));
        this.types = new HashMap<>();
        graph.inputs().forEach(input -> types.put(input.name(), input.dtype()));
        graph.initializers().forEach((name, tensor) -> types.put(name, tensor.dtype()));
        types.putAll(known);
    }

    /**
     * A lowered model, or a part of one with gradients, with its products in the precision of the options.
     *
     * @param known element types of values, by name; those of other values follow from their operators
     * @param exact results of products that stay float32
     */
    public static Model of(Model model, Map<String, DType> known, Set<String> exact, RuntimeOptions options) {
        boolean multiplies = options.provider() != RuntimeOptions.Provider.CPU;
        return options.precision()
                .rounded()
                .map(type ->
                        model.withGraph(new ProductPrecision(model.graph(), known, type, multiplies).rewritten(exact)))
                .orElse(model);
    }

    /** The traced element types of the results of {@code ops}, by name. */
    public static Map<String, DType> types(Collection<Op> ops, Trace trace) {
        Map<String, DType> types = new HashMap<>();
        for (Op op : ops) {
            for (Value output : op.outputs()) {
                if (output != null && trace.dtype(output) != DType.UNDEFINED) {
                    types.put(output.name(), trace.dtype(output));
                }
            }
        }
        return types;
    }

    private Graph rewritten(Set<String> exact) {
        for (Node node : graph.nodes()) {
            node.outputs().forEach(output -> {
                producers.put(output, node);
                types.putIfAbsent(output, typeOf(node));
            });
            if (isProduct(node) && !exact.contains(node.output(0))) {
                multiply(node);
            } else {
                builder.add(node);
            }
        }
        Map<String, Tensor> initializers = new LinkedHashMap<>(graph.initializers());
        initializers.putAll(builder.initializers());
        Graph complete = graph.withNodes(builder.nodes()).withInitializers(initializers);
        Set<String> needed = complete.needed();
        List<Node> nodes = new ArrayList<>(complete.nodes());
        // What was read before and is not read now: weights in their old type, and their casts.
        nodes.removeIf(node -> node.outputs().stream().noneMatch(needed::contains));
        initializers.keySet().retainAll(needed);
        return complete.withNodes(nodes).withInitializers(initializers);
    }

    /** The element type of a node's results where it is not traced; a wrong one leaves a product in float32. */
    private DType typeOf(Node node) {
        if (node.is("Cast")) {
            return DType.of((int) node.intAttribute("to", 0));
        }
        if (node.is("ConstantOfShape")) {
            return node.attributes().get("value") instanceof Attribute.Constant constant
                    ? constant.tensor().dtype()
                    : DType.FLOAT;
        }
        return types.getOrDefault(node.input(node.is("Where") ? 1 : 0), DType.UNDEFINED);
    }

    private boolean isProduct(Node node) {
        return (node.is("MatMul") || node.is("Gemm"))
                && node.domain().isEmpty()
                && types.get(node.input(0)) == DType.FLOAT
                && types.get(node.input(1)) == DType.FLOAT;
    }

    private void multiply(Node node) {
        Map<String, Attribute> attributes = new LinkedHashMap<>(node.attributes());
        attributes.remove("beta");
        String product = builder.add(node.op(), List.of(operand(node.input(0)), operand(node.input(1))), attributes);
        String half = multiplies ? product : cast(product, type);
        if (node.input(2).isEmpty()) {
            builder.add(node(node, "Cast", List.of(half), castTo(DType.FLOAT)));
            return;
        }
        float beta = node.floatAttribute("beta", 1);
        String added = beta == 1 ? node.input(2) : builder.add("Mul", node.input(2), builder.scalar(beta));
        builder.add(node(node, "Add", List.of(cast(half, DType.FLOAT), added), Map.of()));
    }

    private static Node node(Node replaced, String op, List<String> inputs, Map<String, Attribute> attributes) {
        return Node.of(replaced.name(), op, inputs, replaced.outputs(), attributes);
    }

    private String operand(String name) {
        if (multiplies) {
            return rounded(name);
        }
        if (isStored(name)) {
            return name;
        }
        String half = rounded(name);
        return widened.computeIfAbsent(half, key -> cast(half, DType.FLOAT));
    }

    /** Whether a value is a cast of a value of the 16-bit type. */
    private boolean isStored(String name) {
        Node producer = producers.get(name);
        return producer != null && producer.is("Cast") && types.get(producer.input(0)) == type;
    }

    /** The name of a value in the 16-bit type. Every value is rounded once. */
    private String rounded(String name) {
        String known = rounded.get(name);
        if (known == null) {
            known = round(name);
            rounded.put(name, known);
        }
        return known;
    }

    private String round(String name) {
        Node producer = producers.get(name);
        if (isStored(name)) {
            return producer.input(0);
        }
        Tensor weight = weight(name);
        if (weight != null) {
            return builder.constant(
                    Tensor.of(type, weight.shape(), new NarrowBytes(type, weight.dtype(), weight.bytes())));
        }
        if (producer != null && producer.is("Transpose") && isWeight(producer.input(0))) {
            return builder.add("Transpose", List.of(rounded(producer.input(0))), producer.attributes());
        }
        return cast(name, type);
    }

    private boolean isWeight(String name) {
        return isStored(name) || weight(name) != null;
    }

    /** The weight that a value is or is a cast of; null if there is none. */
    private Tensor weight(String name) {
        Tensor own = graph.initializers().get(name);
        Node producer = producers.get(name);
        Tensor found = own == null && producer != null && producer.is("Cast")
                ? graph.initializers().get(producer.input(0))
                : own;
        boolean floats = found != null
                && found.bytes() != null
                && (found.dtype() == DType.FLOAT || Widening.widen(found.dtype()) != found.dtype());
        return floats ? found : null;
    }

    private String cast(String name, DType to) {
        return builder.add("Cast", List.of(name), castTo(to));
    }

    private static Map<String, Attribute> castTo(DType to) {
        return Map.of("to", new Attribute.Int(to.code()));
    }

    /** Elements of a weight, rounded to a 16-bit type when they are read. */
    private record NarrowBytes(DType type, DType stored, Bytes bytes) implements Bytes {
        private static final int BLOCK = 1 << 18;

        @Override
        public long size() {
            return bytes.size() / (stored.bits() / 8) * Short.BYTES;
        }

        @Override
        public void read(long offset, ByteBuffer target) {
            int width = stored.bits() / 8;
            float[] values = new float[Math.min(BLOCK, target.remaining() / Short.BYTES)];
            ByteBuffer source = ByteBuffer.allocate(values.length * width).order(ByteOrder.LITTLE_ENDIAN);
            ByteBuffer halves = ByteBuffer.allocate(values.length * Short.BYTES).order(ByteOrder.LITTLE_ENDIAN);
            for (long first = offset / Short.BYTES; target.hasRemaining(); first += values.length) {
                int count = Math.min(values.length, target.remaining() / Short.BYTES);
                bytes.read(first * width, source.clear().limit(count * width));
                Floats.decode(stored, source.flip(), values, count);
                Floats.encode(type, values, count, halves.clear());
                target.put(halves.flip());
            }
        }
    }
}
