// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** Collects nodes and constants that the tool writes itself, under names that nothing else in the graph has. */
public final class GraphBuilder {
    private final String prefix;
    private final Set<String> taken;
    private final List<Node> nodes = new ArrayList<>();
    private final Map<String, Tensor> initializers = new LinkedHashMap<>();
    private final Map<Object, String> constants = new HashMap<>();
    private int count;

    /**
     * A builder of additions to a graph.
     *
     * @param prefix what all new names start with
     * @param taken names that are in use
     */
    public GraphBuilder(String prefix, Set<String> taken) {
        this.prefix = prefix;
        this.taken = new HashSet<>(taken);
    }

    /** All names that a graph defines: inputs, initializers and outputs of nodes, not those inside bodies. */
    public static Set<String> names(Graph graph) {
        Set<String> names = new HashSet<>(graph.initializers().keySet());
        graph.inputs().forEach(input -> names.add(input.name()));
        graph.nodes().forEach(node -> names.addAll(node.outputs()));
        return names;
    }

    /** A name that nothing has. */
    public String freshName() {
        String name = prefix + count++;
        while (!taken.add(name)) {
            name = prefix + count++;
        }
        return name;
    }

    /** Appends an application of a standard operator with one result, and returns the name of the result. */
    public String add(String op, List<String> inputs, Map<String, Attribute> attributes) {
        return add(op, inputs, attributes, 1).get(0);
    }

    /** Appends an application without attributes. */
    public String add(String op, String... inputs) {
        return add(op, List.of(inputs), Map.of());
    }

    /** Appends an application of a standard operator with {@code results} results, and returns their names. */
    public List<String> add(String op, List<String> inputs, Map<String, Attribute> attributes, int results) {
        List<String> outputs = new ArrayList<>();
        for (int i = 0; i < results; i++) {
            outputs.add(freshName());
        }
        nodes.add(Node.of(outputs.get(0), op, inputs, outputs, attributes));
        return outputs;
    }

    /** Appends a node as it is. */
    public void add(Node node) {
        taken.addAll(node.outputs());
        nodes.add(node);
    }

    /** A vector of int64; equal vectors share one initializer. */
    public String ints(long... values) {
        List<Long> key = java.util.Arrays.stream(values).boxed().toList();
        return constants.computeIfAbsent(
                key, unused -> constant(Tensor.ofIndices(DType.INT64, new long[] {values.length}, values)));
    }

    /** A scalar of int64; equal scalars share one initializer. */
    public String index(long value) {
        return constants.computeIfAbsent(value, key -> constant(Tensor.ofIndices(DType.INT64, new long[0], value)));
    }

    /** A float32 scalar; equal scalars share one initializer. */
    public String scalar(float value) {
        return constants.computeIfAbsent(value, key -> constant(Tensor.ofFloats(DType.FLOAT, new long[0], value)));
    }

    /** A new initializer. */
    public String constant(Tensor tensor) {
        String name = freshName();
        initializers.put(name, tensor);
        return name;
    }

    /** What was appended, in order. */
    public List<Node> nodes() {
        return nodes;
    }

    /** The constants that the nodes read. */
    public Map<String, Tensor> initializers() {
        return initializers;
    }
}
