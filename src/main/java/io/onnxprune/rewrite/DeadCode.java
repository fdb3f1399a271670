// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.rewrite;

import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** Removes nodes and values that an edit left without a consumer. What had no consumer before is kept. */
final class DeadCode {
    private DeadCode() {}

    /**
     * {@code after} without nodes that no output depends on any more, and without inputs, initializers and
     * declarations that only those used.
     *
     * @param before the graph before the edit
     */
    static Graph remove(Graph before, Graph after) {
        Set<String> liveBefore = before.needed();
        Set<String> definedBefore = new HashSet<>(before.initializers().keySet());
        before.nodes().forEach(node -> definedBefore.addAll(node.outputs()));
        Set<String> live = after.needed();
        List<Node> nodes = after.nodes().stream()
                .filter(node -> node.outputs().stream().anyMatch(live::contains)
                        || node.outputs().stream().noneMatch(liveBefore::contains)
                                && node.outputs().stream().anyMatch(definedBefore::contains))
                .toList();
        Set<String> usedBefore = before.reads();
        Set<String> used = after.withNodes(nodes).reads();
        Map<String, Tensor> initializers = new LinkedHashMap<>(after.initializers());
        initializers
                .keySet()
                .removeIf(name -> !used.contains(name) && (usedBefore.contains(name) || !definedBefore.contains(name)));
        List<ValueInfo> inputs = after.inputs().stream()
                .filter(input -> !usedBefore.contains(input.name()) || used.contains(input.name()))
                .toList();
        Set<String> defined = new HashSet<>(used);
        nodes.forEach(node -> defined.addAll(node.outputs()));
        List<ValueInfo> values = after.values().stream()
                .filter(value -> defined.contains(value.name()))
                .toList();
        return new Graph(after.name(), inputs, after.outputs(), values, initializers, nodes, after.rest());
    }
}
