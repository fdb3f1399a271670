// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.ValueInfo;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** Renames values at their uses, also in the bodies of nodes. */
public final class Renaming {
    private Renaming() {}

    /** The node with its inputs and the values that its bodies capture renamed. */
    static Node operands(Node node, Map<String, String> renamed) {
        Node changed = captures(node, renamed);
        return changed.inputs().stream().anyMatch(renamed::containsKey)
                ? changed.withInputs(changed.inputs().stream()
                        .map(name -> renamed.getOrDefault(name, name))
                        .toList())
                : changed;
    }

    /** The node with its inputs, its outputs and the values that its bodies capture renamed. */
    public static Node all(Node node, Map<String, String> renamed) {
        Node changed = operands(node, renamed);
        return changed.outputs().stream().anyMatch(renamed::containsKey)
                ? changed.withOutputs(changed.outputs().stream()
                        .map(name -> renamed.getOrDefault(name, name))
                        .toList())
                : changed;
    }

    /** The node with the values that its bodies capture renamed. */
    static Node captures(Node node, Map<String, String> renamed) {
        Node changed = node;
        if (!renamed.isEmpty()) {
            for (Map.Entry<String, Attribute> attribute : node.attributes().entrySet()) {
                if (attribute.getValue() instanceof Attribute.Body body) {
                    changed =
                            changed.withAttribute(attribute.getKey(), new Attribute.Body(body(body.graph(), renamed)));
                }
            }
        }
        return changed;
    }

    private static Graph body(Graph body, Map<String, String> outer) {
        Map<String, String> renamed = new HashMap<>(outer);
        body.inputs().forEach(input -> renamed.remove(input.name()));
        body.initializers().keySet().forEach(renamed::remove);
        body.nodes().forEach(node -> node.outputs().forEach(renamed::remove));
        List<ValueInfo> outputs = body.outputs().stream()
                .map(output -> output.withName(renamed.getOrDefault(output.name(), output.name())))
                .toList();
        return body.withNodes(body.nodes().stream()
                        .map(node -> operands(node, renamed))
                        .toList())
                .withInterface(body.inputs(), outputs);
    }
}
