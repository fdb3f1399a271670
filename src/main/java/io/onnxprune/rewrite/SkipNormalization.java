// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.rewrite;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Node;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Splits a fused skip normalisation (x, y, scale, shift if centred, bias) into the sum and its normalisation. */
public final class SkipNormalization {
    private SkipNormalization() {}

    private static boolean isCentred(Node node) {
        return node.is("SkipLayerNormalization");
    }

    /** The normalisation of {@code input}, without the sum, with the first output of {@code node}. */
    static Node normalization(Node node, String input) {
        List<String> inputs = new ArrayList<>(List.of(input, node.input(2)));
        if (isCentred(node) && !node.input(3).isEmpty()) {
            inputs.add(node.input(3));
        }
        Map<String, Attribute> attributes = new LinkedHashMap<>();
        attributes.put("axis", new Attribute.Int(-1));
        attributes.put("epsilon", new Attribute.Real(node.floatAttribute("epsilon", 1e-12f)));
        attributes.put("stash_type", new Attribute.Int(1));
        return Node.of(
                node.name(),
                isCentred(node) ? "LayerNormalization" : "SimplifiedLayerNormalization",
                inputs,
                List.of(node.output(0)),
                attributes);
    }

    /**
     * Nodes that are equivalent to {@code node} when only its first output is used.
     *
     * @param sum name of the value x + y + bias
     */
    public static List<Node> separate(Node node, String sum) {
        String bias = node.input(isCentred(node) ? 4 : 3);
        String unbiased = bias.isEmpty() ? sum : sum + "_unbiased";
        List<Node> nodes = new ArrayList<>();
        nodes.add(Node.of(unbiased, "Add", List.of(node.input(0), node.input(1)), List.of(unbiased), Map.of()));
        if (!bias.isEmpty()) {
            nodes.add(Node.of(sum, "Add", List.of(unbiased, bias), List.of(sum), Map.of()));
        }
        nodes.add(normalization(node, sum));
        return nodes;
    }
}
