// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * Rewrites a half-precision graph so that it computes in float32. Some execution providers lack kernels for float16
 * and bfloat16, and rounding errors would hide differences when two models are compared.
 */
public final class Widening {
    /** Names of attributes that hold a TensorProto element type code. */
    private static final List<String> TYPE_ATTRIBUTES = List.of("to", "dtype", "output_dtype");

    private Widening() {}

    /**
     * The model with all half-precision computation in float32. Half-precision initializers are kept and cast at their
     * use, so that only the weights in use are held in float32.
     */
    public static Model widen(Model model) {
        return hasHalf(model.graph()) ? model.withGraph(widen(model.graph(), new HashSet<>())) : model;
    }

    private static boolean hasHalf(Graph graph) {
        return graph.initializers().values().stream().anyMatch(tensor -> isHalf(tensor.dtype()))
                || graph.inputs().stream().anyMatch(input -> isHalf(input.dtype()))
                || graph.nodes().stream().anyMatch(Widening::hasHalf);
    }

    /** Whether a node produces half-precision values itself: by a cast, a constant or in its bodies. */
    private static boolean hasHalf(Node node) {
        return node.attributes().entrySet().stream().anyMatch(entry -> {
            Attribute attribute = entry.getValue();
            return attribute instanceof Attribute.Body body && hasHalf(body.graph())
                    || attribute instanceof Attribute.Constant constant
                            && isHalf(constant.tensor().dtype())
                    || attribute instanceof Attribute.Int code
                            && TYPE_ATTRIBUTES.contains(entry.getKey())
                            && isHalf(DType.of((int) code.value()));
        });
    }

    private static boolean isHalf(DType dtype) {
        return widen(dtype) != dtype;
    }

    private static Graph widen(Graph graph, Set<String> outer) {
        Set<String> halves = new HashSet<>(outer);
        graph.initializers().forEach((name, tensor) -> {
            if (isHalf(tensor.dtype())) {
                halves.add(name);
            }
        });
        List<Node> nodes = new ArrayList<>();
        for (Node node : graph.nodes()) {
            Node changed = widen(node);
            for (int i = 0; i < node.inputs().size(); i++) {
                if (halves.contains(node.input(i))) {
                    String cast = "onnx_prune_widened_" + System.identityHashCode(node) + "_" + i;
                    nodes.add(Node.of(
                            cast,
                            "Cast",
                            List.of(node.input(i)),
                            List.of(cast),
                            Map.of("to", new Attribute.Int(DType.FLOAT.code()))));
                    changed = changed.withInput(i, cast);
                }
            }
            for (Map.Entry<String, Attribute> attribute : node.attributes().entrySet()) {
                if (attribute.getValue() instanceof Attribute.Body body) {
                    changed =
                            changed.withAttribute(attribute.getKey(), new Attribute.Body(widen(body.graph(), halves)));
                }
            }
            nodes.add(changed);
        }
        return graph.withNodes(nodes)
                .withValues(List.of())
                .withInterface(
                        graph.inputs().stream()
                                .map(input -> input.withDType(widen(input.dtype())))
                                .toList(),
                        graph.outputs().stream()
                                .map(output -> output.withDType(widen(output.dtype())))
                                .toList());
    }

    /** Float32 for half-precision types; any other type unchanged. */
    public static DType widen(DType dtype) {
        return dtype == DType.FLOAT16 || dtype == DType.BFLOAT16 ? DType.FLOAT : dtype;
    }

    /** The tensor in float32 if it has a half-precision type, computed when it is read; else the tensor itself. */
    public static Tensor widen(Tensor tensor) {
        return widen(tensor.dtype()) == tensor.dtype()
                ? tensor
                : Tensor.of(DType.FLOAT, tensor.shape(), new WideBytes(tensor.dtype(), tensor.bytes()));
    }

    /**
     * The model with half-precision initializers converted to float32 where they are cast before their use. Several
     * sessions can then share the converted weights in a file instead of casting them in each. Bodies of control flow
     * are not changed.
     */
    public static Model widenInitializers(Model model) {
        Graph graph = model.graph();
        Map<String, Tensor> initializers = new LinkedHashMap<>(graph.initializers());
        List<Node> nodes = new ArrayList<>();
        for (Node node : graph.nodes()) {
            if (widensInitializer(graph, node)) {
                initializers.put(node.output(0), widen(graph.initializers().get(node.input(0))));
            } else {
                nodes.add(node);
            }
        }
        return model.withGraph(graph.withNodes(nodes).withInitializers(initializers));
    }

    /**
     * The model with a cast of its own for each use of a half-precision initializer that is cast to float32. The casts
     * are the first nodes. ONNX Runtime then runs each just before its use, so that only the widened weights in use
     * are held. Bodies of control flow are not changed.
     */
    public static Model castAtUse(Model model) {
        Graph graph = model.graph();
        GraphBuilder casts = new GraphBuilder("onnx_prune_widened_at_use_", GraphBuilder.names(graph));
        Map<String, Node> shared = new LinkedHashMap<>();
        List<Node> others = new ArrayList<>();
        for (Node node : graph.nodes()) {
            if (widensInitializer(graph, node)) {
                shared.put(node.output(0), node);
                continue;
            }
            Node changed = node;
            for (int i = 0; i < node.inputs().size(); i++) {
                Node cast = shared.get(node.input(i));
                if (cast != null) {
                    changed = changed.withInput(i, casts.add("Cast", cast.inputs(), cast.attributes()));
                }
            }
            others.add(changed);
        }
        Set<String> reads = graph.withNodes(others).reads();
        List<Node> nodes = new ArrayList<>(casts.nodes());
        shared.values().stream().filter(cast -> reads.contains(cast.output(0))).forEach(nodes::add);
        nodes.addAll(others);
        return model.withGraph(graph.withNodes(nodes));
    }

    /** Whether a graph casts half-precision initializers to float32. */
    public static boolean widensInitializers(Graph graph) {
        return graph.nodes().stream().anyMatch(node -> widensInitializer(graph, node));
    }

    private static boolean widensInitializer(Graph graph, Node node) {
        Tensor cast = node.is("Cast") && node.intAttribute("to", 0) == DType.FLOAT.code()
                ? graph.initializers().get(node.input(0))
                : null;
        return cast != null && isHalf(cast.dtype());
    }

    /** Half-precision elements as float32. */
    private record WideBytes(DType dtype, Bytes half) implements Bytes {
        @Override
        public long size() {
            return 2 * half.size();
        }

        @Override
        public void read(long offset, ByteBuffer target) {
            int count = target.remaining() / Float.BYTES;
            ByteBuffer source = ByteBuffer.allocate(count * Short.BYTES).order(ByteOrder.LITTLE_ENDIAN);
            half.read(offset / 2, source);
            float[] values = new float[count];
            Floats.decode(dtype, source.flip(), values, count);
            target.slice().order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().put(values);
            target.position(target.position() + count * Float.BYTES);
        }
    }

    /** The node with half-precision constants and type attributes changed to float32. */
    public static Node widen(Node node) {
        Map<String, Attribute> changed = new LinkedHashMap<>(node.attributes());
        changed.replaceAll((key, attribute) -> {
            if (attribute instanceof Attribute.Constant constant
                    && constant.tensor().dtype().isFloat()) {
                return new Attribute.Constant(widen(constant.tensor()));
            }
            if (attribute instanceof Attribute.Int code && TYPE_ATTRIBUTES.contains(key)) {
                return new Attribute.Int(widen(DType.of((int) code.value())).code());
            }
            return attribute;
        });
        return new Node(node.name(), node.domain(), node.op(), node.inputs(), node.outputs(), changed, node.rest());
    }
}
