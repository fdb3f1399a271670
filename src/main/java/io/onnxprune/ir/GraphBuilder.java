// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** Builds nodes and constants to be added to a graph, under names that the graph does not use. */
public final class GraphBuilder {
    private final String prefix;
    private final Set<String> taken;
    private final List<Node> nodes = new ArrayList<>();
    private final Map<String, Tensor> initializers = new LinkedHashMap<>();
    private final Map<Object, String> constants = new HashMap<>();
    private int count;

    /**
     * Creates a builder.
     *
     * @param prefix prefix of all new names
     * @param taken names that are in use
     */
    public GraphBuilder(String prefix, Set<String> taken) {
        this.prefix = prefix;
        this.taken = new HashSet<>(taken);
    }

    /** All names that a graph defines: inputs, initializers and node outputs, without those inside bodies. */
    public static Set<String> names(Graph graph) {
        Set<String> names = new HashSet<>(graph.initializers().keySet());
        graph.inputs().forEach(input -> names.add(input.name()));
        graph.nodes().forEach(node -> names.addAll(node.outputs()));
        return names;
    }

    /** A name that is not used yet. */
    public String freshName() {
        String name = prefix + count++;
        while (!taken.add(name)) {
            name = prefix + count++;
        }
        return name;
    }

    /** Appends a node of a standard operator with one output, and returns the output's name. */
    public String add(String op, List<String> inputs, Map<String, Attribute> attributes) {
        return add(op, inputs, attributes, 1).get(0);
    }

    /** Appends a node of a standard operator with one output and no attributes, and returns the output's name. */
    public String add(String op, String... inputs) {
        return add(op, List.of(inputs), Map.of());
    }

    /** Appends a node of a standard operator with {@code results} outputs, and returns their names. */
    public List<String> add(String op, List<String> inputs, Map<String, Attribute> attributes, int results) {
        List<String> outputs = new ArrayList<>();
        for (int i = 0; i < results; i++) {
            outputs.add(freshName());
        }
        nodes.add(Node.of(outputs.get(0), op, inputs, outputs, attributes));
        return outputs;
    }

    /** Appends a node unchanged. */
    public void add(Node node) {
        taken.addAll(node.outputs());
        nodes.add(node);
    }

    /** The name of an int64 vector. Equal vectors share one initializer. */
    public String ints(long... values) {
        List<Long> key = java.util.Arrays.stream(values).boxed().toList();
        return constants.computeIfAbsent(
                key, unused -> constant(Tensor.ofIndices(DType.INT64, new long[] {values.length}, values)));
    }

    /** The name of an int64 scalar. Equal scalars share one initializer. */
    public String index(long value) {
        return constants.computeIfAbsent(value, key -> constant(Tensor.ofIndices(DType.INT64, new long[0], value)));
    }

    /** The name of a float32 scalar. Equal scalars share one initializer. */
    public String scalar(float value) {
        return constants.computeIfAbsent(value, key -> constant(Tensor.ofFloats(DType.FLOAT, new long[0], value)));
    }

    /** Adds an initializer and returns its name. */
    public String constant(Tensor tensor) {
        String name = freshName();
        initializers.put(name, tensor);
        return name;
    }

    /** The appended nodes, in order. */
    public List<Node> nodes() {
        return nodes;
    }

    /** The initializers of the appended nodes, by name. */
    public Map<String, Tensor> initializers() {
        return initializers;
    }
}
