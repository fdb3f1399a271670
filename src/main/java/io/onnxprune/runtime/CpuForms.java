// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The form of a model that ONNX Runtime's CPU provider runs. Some inputs of operators are known to its kernels for GPUs
 * only. In this form they are operators of their own, with the same results. A model that is written keeps its own form.
 */
public final class CpuForms {
    /** Positions of the norms' weights of GroupQueryAttention. */
    private static final int QUERY_NORM = 14;

    private static final int KEY_NORM = 15;

    private CpuForms() {}

    /** The model in this form; the model itself if it has it. */
    public static Model of(Model model) {
        return isNeeded(model) ? model.withGraph(form(model.graph())) : model;
    }

    /** Whether the model does not have this form. */
    static boolean isNeeded(Model model) {
        return needsForm(model.graph());
    }

    private static boolean needsForm(Graph graph) {
        return graph.nodes().stream()
                .anyMatch(node -> hasHeadNorms(node)
                        || node.attributes().values().stream()
                                .anyMatch(value -> value instanceof Attribute.Body body && needsForm(body.graph())));
    }

    private static boolean hasHeadNorms(Node node) {
        return node.is("GroupQueryAttention")
                && node.domain().equals("com.microsoft")
                && !node.input(QUERY_NORM).isEmpty()
                && !node.input(KEY_NORM).isEmpty();
    }

    private static Graph form(Graph graph) {
        Map<String, Tensor> initializers = new LinkedHashMap<>(graph.initializers());
        List<Node> nodes = new ArrayList<>();
        for (Node node : graph.nodes()) {
            Node changed = node;
            for (Map.Entry<String, Attribute> attribute : node.attributes().entrySet()) {
                if (attribute.getValue() instanceof Attribute.Body body) {
                    changed = changed.withAttribute(attribute.getKey(), new Attribute.Body(form(body.graph())));
                }
            }
            if (hasHeadNorms(node)) {
                new HeadNorms(node, nodes, initializers).append();
            } else {
                nodes.add(changed);
            }
        }
        return graph.withNodes(nodes).withInitializers(initializers);
    }

    /**
     * GroupQueryAttention with RMS norms of every query and key head: the norms become nodes before it. Queries are
     * {@code [B, T, N·d]} and keys {@code [B, T, G·d]}; where keys and values are omitted, the queries hold all three.
     *
     * @param nodes receives the nodes
     * @param initializers receives their constants
     */
    private record HeadNorms(Node node, List<Node> nodes, Map<String, Tensor> initializers) {
        void append() {
            long queries = node.intAttribute("num_heads", 0);
            long keys = node.intAttribute("kv_num_heads", 0);
            List<String> inputs = new ArrayList<>(node.inputs().subList(0, QUERY_NORM));
            if (inputs.get(1).isEmpty()) {
                String heads = reshape(inputs.get(0), "all", 0, 0, queries + 2 * keys, -1);
                List<String> parts = List.of(name("queries"), name("keys"), name("values"));
                add("Split", List.of(heads, indices("sizes", queries, keys, keys)), parts, Map.of("axis", number(2)));
                String query = norm(parts.get(0), "normed_queries", QUERY_NORM);
                String key = norm(parts.get(1), "normed_keys", KEY_NORM);
                String joined = name("joined");
                add("Concat", List.of(query, key, parts.get(2)), List.of(joined), Map.of("axis", number(2)));
                inputs.set(0, reshape(joined, "packed", 0, 0, -1));
            } else {
                String query = norm(reshape(inputs.get(0), "queries", 0, 0, queries, -1), "normed_queries", QUERY_NORM);
                String key = norm(reshape(inputs.get(1), "keys", 0, 0, keys, -1), "normed_keys", KEY_NORM);
                inputs.set(0, reshape(query, "query", 0, 0, -1));
                inputs.set(1, reshape(key, "key", 0, 0, -1));
            }
            nodes.add(node.withInputs(inputs));
        }

        /** An RMS norm of the last axis; this name of it is known to ONNX Runtime in every operator set. */
        private String norm(String heads, String what, int weight) {
            float epsilon = node.floatAttribute("qk_norm_epsilon", 1e-6f);
            Map<String, Attribute> attributes = Map.of("axis", number(-1), "epsilon", new Attribute.Real(epsilon));
            return add(
                    "SimplifiedLayerNormalization",
                    List.of(heads, node.input(weight)),
                    List.of(name(what)),
                    attributes);
        }

        private String reshape(String x, String what, long... shape) {
            return add("Reshape", List.of(x, indices(what + "_shape", shape)), List.of(name(what)), Map.of());
        }

        private String add(String op, List<String> inputs, List<String> outputs, Map<String, Attribute> attributes) {
            nodes.add(Node.of(outputs.get(0), op, inputs, outputs, attributes));
            return outputs.get(0);
        }

        private String indices(String what, long... values) {
            initializers.put(name(what), Tensor.ofIndices(DType.INT64, new long[] {values.length}, values));
            return name(what);
        }

        private static Attribute number(long value) {
            return new Attribute.Int(value);
        }

        /** A name that no other value has, since no other value has that of the result. */
        private String name(String what) {
            return "onnx_prune_" + node.output(0) + "_" + what;
        }
    }
}
