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
 * A graph in SSA form, nodes in topological order. Immutable; weights are shared between versions of a graph.
 *
 * @param values declared types of inner values (ONNX value_info)
 * @param rest serialized fields that are only carried through
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

    /** The inputs that a caller gives: before IR version 4 initializers are listed as inputs too. */
    public List<ValueInfo> givenInputs() {
        return inputs.stream()
                .filter(input -> !initializers.containsKey(input.name()))
                .toList();
    }

    /** All names that nodes and graph outputs read, in subgraphs too. */
    public Set<String> reads() {
        Set<String> names = new HashSet<>();
        nodes.forEach(node -> names.addAll(node.reads()));
        outputs.forEach(output -> names.add(output.name()));
        return names;
    }

    /** The names of these values and of all that they are computed from; nodes may stand in any order. */
    public Set<String> needed(Collection<String> values) {
        Set<String> needed = new HashSet<>(values);
        boolean changed = true;
        while (changed) {
            changed = false;
            for (int i = nodes.size() - 1; i >= 0; i--) {
                if (nodes.get(i).outputs().stream().anyMatch(needed::contains)) {
                    Set<String> reads = nodes.get(i).reads();
                    // The name of an omitted operand is also that of an omitted result.
                    reads.remove("");
                    changed |= needed.addAll(reads);
                }
            }
        }
        return needed;
    }

    /** The names of the outputs and of all that they are computed from. */
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
