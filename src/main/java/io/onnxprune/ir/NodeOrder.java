// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.PriorityQueue;
import java.util.Set;
import java.util.TreeSet;

/** The order in which the nodes of a graph can be executed. */
final class NodeOrder {
    /** Files are nearly in order. Passes over one that is not would take a time that grows with the square of its nodes. */
    private static final int MAX_PASSES = 20;

    private NodeOrder() {}

    /**
     * The nodes in an order of execution. The order of the file is kept unless a node stands before the producer of
     * its input.
     */
    static List<Node> sorted(Graph graph, Set<String> outer) {
        List<Node> sorted = new ArrayList<>();
        Set<String> defined = new HashSet<>(outer);
        defined.add("");
        List<Node> pending = graph.nodes();
        for (int pass = 0; !pending.isEmpty(); pass++) {
            if (pass == MAX_PASSES) {
                sorted.addAll(sortedByNeeds(pending, defined));
                break;
            }
            List<Node> later = new ArrayList<>();
            for (Node node : pending) {
                if (defined.containsAll(node.inputs()) && defined.containsAll(captures(node))) {
                    sorted.add(node);
                    defined.addAll(node.outputs());
                } else {
                    later.add(node);
                }
            }
            if (later.size() == pending.size()) {
                // No node can be placed. Resolving the first of them reports the undefined name.
                sorted.addAll(later);
                break;
            }
            pending = later;
        }
        return sorted;
    }

    /** The nodes with each after those that it needs; in the order of the file what cannot be placed. */
    private static List<Node> sortedByNeeds(List<Node> nodes, Set<String> defined) {
        int[] missing = new int[nodes.size()];
        Map<String, List<Integer>> readers = new HashMap<>();
        PriorityQueue<Integer> ready = new PriorityQueue<>();
        for (int i = 0; i < missing.length; i++) {
            Set<String> needs = new HashSet<>(nodes.get(i).inputs());
            needs.addAll(captures(nodes.get(i)));
            needs.removeAll(defined);
            missing[i] = needs.size();
            for (String need : needs) {
                readers.computeIfAbsent(need, key -> new ArrayList<>()).add(i);
            }
            if (needs.isEmpty()) {
                ready.add(i);
            }
        }
        Set<Node> sorted = new LinkedHashSet<>();
        while (!ready.isEmpty()) {
            Node node = nodes.get(ready.remove());
            sorted.add(node);
            for (String output : node.outputs()) {
                for (int reader : readers.getOrDefault(output, List.of())) {
                    if (--missing[reader] == 0) {
                        ready.add(reader);
                    }
                }
                readers.remove(output);
            }
        }
        sorted.addAll(nodes);
        return List.copyOf(sorted);
    }

    /** Names of outer values that the bodies of a node capture, in a stable order. */
    static TreeSet<String> captures(Node node) {
        TreeSet<String> names = new TreeSet<>();
        for (Attribute attribute : node.attributes().values()) {
            if (attribute instanceof Attribute.Body body) {
                for (Node inner : body.graph().nodes()) {
                    names.addAll(inner.inputs());
                    names.addAll(captures(inner));
                }
                body.graph().outputs().forEach(output -> names.add(output.name()));
                body.graph().nodes().forEach(inner -> names.removeAll(inner.outputs()));
                body.graph().inputs().forEach(input -> names.remove(input.name()));
                body.graph().initializers().keySet().forEach(names::remove);
            }
        }
        return names;
    }
}
