// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import java.util.HashSet;
import java.util.Map;
import java.util.Set;

/**
 * Checks that a model is well formed: every name is defined once and before its use, graph outputs exist, and
 * initializers have as many bytes as their shape requires.
 */
public final class GraphChecker {
    private GraphChecker() {}

    /**
     * Checks {@code model} after the pass with the given name.
     *
     * @throws IllegalStateException when the model is not well formed; the message names the pass and the place. This
     *     is a defect of the pass
     */
    public static void check(Model model, String pass) {
        try {
            Program.of(model);
            checkGraph(model.graph(), new HashSet<>());
        } catch (RuntimeException e) {
            throw new IllegalStateException("after pass " + pass + ": " + e.getMessage(), e);
        }
    }

    private static void checkGraph(Graph graph, Set<String> outer) {
        Set<String> defined = new HashSet<>(outer);
        graph.initializers().forEach((name, tensor) -> {
            defined.add(name);
            boolean complete = tensor.bytes() == null
                    || tensor.bytes().size() == tensor.dtype().bytes(tensor.elements());
            if (!complete) {
                throw new IllegalStateException("initializer \"" + name + "\" does not hold the bytes of " + tensor);
            }
        });
        graph.inputs().forEach(input -> defined.add(input.name()));
        for (Node node : graph.nodes()) {
            for (Map.Entry<String, Attribute> attribute : node.attributes().entrySet()) {
                if (attribute.getValue() instanceof Attribute.Body body) {
                    checkGraph(body.graph(), defined);
                }
            }
            for (String output : node.outputs()) {
                if (!output.isEmpty() && !defined.add(output)) {
                    throw new IllegalStateException(
                            "node " + node.label() + " defines \"" + output + "\" a second time");
                }
            }
        }
        for (ValueInfo output : graph.outputs()) {
            if (!defined.contains(output.name())) {
                throw new IllegalStateException("graph output \"" + output.name() + "\" is not defined");
            }
        }
    }
}
