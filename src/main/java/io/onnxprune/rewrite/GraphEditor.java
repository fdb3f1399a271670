// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.rewrite;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * Collects edits of a model's graphs, including subgraphs, and applies them together: replaced nodes, inserted nodes,
 * and new inputs and initializers of the top-level graph, which subgraphs can use.
 */
final class GraphEditor {
    private final Model model;
    private final Set<String> names = new HashSet<>();
    private final Map<Node, Node> replaced = new HashMap<>();
    private final Map<Node, List<Node>> before = new HashMap<>();
    private final Map<Node, List<Node>> after = new HashMap<>();
    private final Map<String, Tensor> added = new LinkedHashMap<>();
    private final List<ValueInfo> inputs = new ArrayList<>();

    GraphEditor(Model model) {
        this.model = model;
        collectNames(model.graph());
    }

    private void collectNames(Graph graph) {
        names.addAll(graph.initializers().keySet());
        graph.inputs().forEach(input -> names.add(input.name()));
        for (Node node : graph.nodes()) {
            names.add(node.name());
            names.addAll(node.outputs());
            for (Attribute attribute : node.attributes().values()) {
                if (attribute instanceof Attribute.Body body) {
                    collectNames(body.graph());
                }
            }
        }
    }

    /** A name that is not used in the model: {@code base}, or {@code base} with a number. */
    String freshName(String base) {
        String name = base;
        for (int i = 1; !names.add(name); i++) {
            name = base + "_" + i;
        }
        return name;
    }

    /** The node with the edits so far. */
    Node current(Node original) {
        return replaced.getOrDefault(original, original);
    }

    void replace(Node original, Node changed) {
        replaced.put(original, changed);
    }

    void setInput(Node original, int index, String value) {
        replace(original, current(original).withInput(index, value));
    }

    /**
     * Renames the first output of a node and returns its former name. A node that is inserted after it takes that
     * name, so that consumers, also in bodies, need no change.
     */
    String renameOutput(Node original, String suffix) {
        Node node = current(original);
        List<String> outputs = new ArrayList<>(node.outputs());
        outputs.set(0, freshName(node.output(0) + suffix));
        replace(original, node.withOutputs(outputs));
        return node.output(0);
    }

    void insertBefore(Node original, Node inserted) {
        before.computeIfAbsent(original, key -> new ArrayList<>()).add(inserted);
    }

    void insertAfter(Node original, Node inserted) {
        after.computeIfAbsent(original, key -> new ArrayList<>()).add(inserted);
    }

    /** Adds an initializer to the top-level graph and returns its name. */
    String addInitializer(String base, Tensor tensor) {
        String name = freshName(base);
        added.put(name, tensor);
        return name;
    }

    /** Adds an input to the top-level graph. */
    void addInput(ValueInfo input) {
        inputs.add(input);
    }

    /**
     * The model with all edits.
     *
     * @param initializers replacements for tensors of the top-level graph, by name
     */
    Model apply(Map<String, Tensor> initializers) {
        Map<String, Tensor> all = new LinkedHashMap<>(model.graph().initializers());
        all.replaceAll((name, tensor) -> initializers.getOrDefault(name, tensor));
        all.putAll(added);
        List<ValueInfo> declared = new ArrayList<>(model.graph().inputs());
        declared.addAll(inputs);
        return model.withGraph(edit(model.graph())
                .withInitializers(all)
                .withInterface(declared, model.graph().outputs()));
    }

    private Graph edit(Graph graph) {
        List<Node> nodes = new ArrayList<>();
        for (Node node : graph.nodes()) {
            nodes.addAll(before.getOrDefault(node, List.of()));
            nodes.add(editBodies(current(node)));
            nodes.addAll(after.getOrDefault(node, List.of()));
        }
        return graph.withNodes(nodes);
    }

    private Node editBodies(Node node) {
        Node changed = node;
        for (Map.Entry<String, Attribute> attribute : node.attributes().entrySet()) {
            if (attribute.getValue() instanceof Attribute.Body body) {
                changed = changed.withAttribute(attribute.getKey(), new Attribute.Body(edit(body.graph())));
            }
        }
        return changed;
    }
}
