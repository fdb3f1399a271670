// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.OptionalLong;
import java.util.Set;

/** The table of embeddings that token ids index. Its number of rows tells an output over the vocabulary from others. */
final class TokenTable {
    /** Operators whose results are still token ids when their first input is, or the inputs of a choice are. */
    private static final Set<String> KEEP_IDS = Set.of(
            "Cast", "Clip", "Expand", "Flatten", "Identity", "Max", "Min", "Reshape", "Squeeze", "Unsqueeze", "Where");

    /** Operators whose result has as many rows as their first input. */
    private static final Set<String> KEEP_ROWS = Set.of("Cast", "Constant", "DequantizeLinear", "Identity");

    private final Set<String> ids = new HashSet<>();
    private final Map<String, Long> rows = new HashMap<>();
    private long largest = -1;

    private TokenTable() {}

    /**
     * The number of rows of the largest constant table that a graph, or a branch in it, indexes with an input; empty
     * when there is none.
     *
     * @param tokens the input of token ids
     */
    static OptionalLong size(Graph graph, String tokens) {
        TokenTable table = new TokenTable();
        table.ids.add(tokens);
        table.visit(graph);
        return table.largest < 0 ? OptionalLong.empty() : OptionalLong.of(table.largest);
    }

    private void visit(Graph graph) {
        graph.initializers().forEach(this::addRows);
        for (Node node : graph.nodes()) {
            follow(node);
            for (Attribute attribute : node.attributes().values()) {
                if (attribute instanceof Attribute.Body body) {
                    visit(body.graph());
                }
            }
        }
    }

    private void addRows(String name, Tensor tensor) {
        if (tensor.rank() >= 2) {
            rows.put(name, tensor.dim(0));
        }
    }

    private void follow(Node node) {
        if (KEEP_IDS.contains(node.op()) && node.inputs().stream().anyMatch(ids::contains)) {
            ids.addAll(node.outputs());
        }
        if (KEEP_ROWS.contains(node.op())) {
            if (node.attributes().get("value") instanceof Attribute.Constant constant) {
                addRows(node.outputs().get(0), constant.tensor());
            } else if (!node.inputs().isEmpty()
                    && rows.containsKey(node.inputs().get(0))) {
                rows.put(node.outputs().get(0), rows.get(node.inputs().get(0)));
            }
        }
        switch (node.op()) {
            case "Gather" -> lookUp(node, 0, 1, "axis");
            case "GatherBlockQuantized" -> lookUp(node, 0, 1, "gather_axis");
            case "EmbedLayerNormalization" -> lookUp(node, 2, 0, "");
            default -> {
                // Nothing else looks token ids up.
            }
        }
    }

    private void lookUp(Node node, int table, int index, String axis) {
        boolean byToken = node.inputs().size() > Math.max(table, index)
                && ids.contains(node.inputs().get(index))
                && node.intAttribute(axis, 0) == 0;
        if (byToken) {
            largest = Math.max(largest, rows.getOrDefault(node.inputs().get(table), -1L));
        }
    }
}
