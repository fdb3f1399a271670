// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import java.util.Collection;
import java.util.Collections;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * An ONNX graph in SSA form with nodes in topological order. Immutable; versions of a graph share their weights.
 *
 * @param values declared types of inner values (value_info)
 * @param rest other GraphProto fields, serialized; they are kept without being interpreted
 */
@SuppressWarnings("ArrayRecordComponent") // carried through, never compared
public record Graph(
        String name,
        List<ValueInfo> inputs,
        List<ValueInfo> outputs,
        List<ValueInfo> values,
        Map<String, Tensor> initializers,
        List<Node> nodes,
        byte[] rest) {
    public Graph {
        inputs = List.copyOf(inputs);
        outputs = List.copyOf(outputs);
        values = List.copyOf(values);
        initializers = Collections.unmodifiableMap(new LinkedHashMap<>(initializers));
        nodes = List.copyOf(nodes);
    }

    /**
     * The inputs that a caller supplies. Before IR version 4, initializers are listed as inputs too; these are left
     * out.
     */
    public List<ValueInfo> givenInputs() {
        return inputs.stream()
                .filter(input -> !initializers.containsKey(input.name()))
                .toList();
    }

    /** Names of all values that nodes and graph outputs consume, also in subgraphs. */
    public Set<String> reads() {
        Set<String> names = new HashSet<>();
        nodes.forEach(node -> names.addAll(node.reads()));
        outputs.forEach(output -> names.add(output.name()));
        return names;
    }

    /** Names of the given values and of all values that they are computed from. Nodes may be in any order. */
    public Set<String> needed(Collection<String> values) {
        Set<String> needed = new HashSet<>(values);
        boolean changed = true;
        while (changed) {
            changed = false;
            for (int i = nodes.size() - 1; i >= 0; i--) {
                if (nodes.get(i).outputs().stream().anyMatch(needed::contains)) {
                    Set<String> operands = nodes.get(i).reads();
                    // An omitted operand and an omitted result have the same, empty name.
                    operands.remove("");
                    changed |= needed.addAll(operands);
                }
            }
        }
        return needed;
    }

    /** Names of the graph outputs and of all values that they are computed from. */
    public Set<String> needed() {
        return needed(outputs.stream().map(ValueInfo::name).toList());
    }

    public Graph withNodes(List<Node> changed) {
        return new Graph(name, inputs, outputs, values, initializers, changed, rest);
    }

    public Graph withInitializers(Map<String, Tensor> changed) {
        return new Graph(name, inputs, outputs, values, changed, nodes, rest);
    }

    public Graph withValues(List<ValueInfo> changed) {
        return new Graph(name, inputs, outputs, changed, initializers, nodes, rest);
    }

    public Graph withInterface(List<ValueInfo> changedInputs, List<ValueInfo> changedOutputs) {
        return new Graph(name, changedInputs, changedOutputs, values, initializers, nodes, rest);
    }
}
