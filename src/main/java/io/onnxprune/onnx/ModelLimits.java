// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.onnx;

import ai.onnx.proto.OnnxMl.AttributeProto;
import ai.onnx.proto.OnnxMl.FunctionProto;
import ai.onnx.proto.OnnxMl.GraphProto;
import ai.onnx.proto.OnnxMl.ModelProto;
import ai.onnx.proto.OnnxMl.NodeProto;
import io.onnxprune.diag.UserException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * Bounds of what a model unfolds to. ONNX Runtime inlines functions and descends into subgraphs recursively and without
 * a limit, so a model that is endless or too deep would end the process. No runtime sees a model before this check.
 */
final class ModelLimits {
    /** Calls of functions inside functions. Exporters nest about as deep as the modules of a model: ten. */
    static final int MAX_CALLS = 100;

    /** Subgraphs inside subgraphs. ONNX Runtime's own parser ends at about 30. */
    static final int MAX_SUBGRAPHS = 30;

    /**
     * Nodes after all calls are inlined, unless the file itself has a good part of them. A dense model has some 10,000, and
     * ONNX Runtime's effort grows with the square of the number.
     */
    static final long MAX_NODES = 40_000;

    private static final int MAX_GROWTH = 5;

    /** Where counting stops, to keep sums from overflowing. */
    private static final long COUNTED = 1L << 40;

    /** What a list of nodes unfolds to. */
    private record Extent(long nodes, int calls, int subgraphs) {}

    private final Path file;
    private final Map<String, FunctionProto> functions = new HashMap<>();
    private final Map<String, Extent> known = new HashMap<>();
    private final Set<String> open = new LinkedHashSet<>();

    private ModelLimits(Path file, List<FunctionProto> functions) {
        this.file = file;
        for (FunctionProto function : functions) {
            String key = key(function.getDomain(), function.getName(), function.getOverload());
            if (this.functions.put(key, function) != null) {
                throw new UserException(file + " defines the function " + name(key) + " twice; export it again");
            }
        }
    }

    /**
     * Checks a model.
     *
     * @throws UserException when its functions call each other in a circle or too deep, its subgraphs are nested too
     *     deep, or it has too many nodes with its functions inlined
     */
    static void check(ModelProto model, Path file) {
        ModelLimits limits = new ModelLimits(file, model.getFunctionsList());
        long nodes = limits.extent(model.getGraph().getNodeList()).nodes();
        // Functions that the graph does not call are checked too, because ONNX Runtime descends into all of them.
        for (Map.Entry<String, FunctionProto> function : limits.functions.entrySet()) {
            nodes = Math.max(
                    nodes,
                    limits.function(function.getKey(), function.getValue()).nodes());
        }
        long written = model.getGraph().getNodeCount();
        for (FunctionProto function : model.getFunctionsList()) {
            written += function.getNodeCount();
        }
        long limit = Math.max(MAX_NODES, MAX_GROWTH * written);
        if (nodes > limit) {
            throw new UserException(
                    "%s has more than %,d nodes when its functions are inlined; export it with fewer calls of functions"
                            .formatted(file, limit));
        }
    }

    /** Tells functions apart: domain, name and overload. */
    static String key(String domain, String name, String overload) {
        return (domain.equals("ai.onnx") ? "" : domain) + "\n" + name + "\n" + overload;
    }

    private static String name(String key) {
        String[] parts = key.split("\n", -1);
        return '"'
                + (parts[0].isEmpty() ? "" : parts[0] + ".")
                + parts[1]
                + (parts[2].isEmpty() ? "" : ":" + parts[2])
                + '"';
    }

    private Extent extent(List<NodeProto> nodes) {
        long count = 0;
        int calls = 0;
        int subgraphs = 0;
        for (NodeProto node : nodes) {
            String key = key(node.getDomain(), node.getOpType(), node.getOverload());
            FunctionProto function = functions.get(key);
            if (function == null) {
                count++;
            } else {
                Extent body = function(key, function);
                count += body.nodes;
                calls = Math.max(calls, body.calls + 1);
                subgraphs = Math.max(subgraphs, body.subgraphs);
            }
            for (AttributeProto attribute : node.getAttributeList()) {
                for (GraphProto graph : subgraphs(attribute)) {
                    Extent body = extent(graph.getNodeList());
                    count += body.nodes;
                    calls = Math.max(calls, body.calls);
                    subgraphs = Math.max(subgraphs, body.subgraphs + 1);
                }
            }
            count = Math.min(count, COUNTED);
        }
        if (calls > MAX_CALLS) {
            throw tooDeep();
        }
        if (subgraphs > MAX_SUBGRAPHS) {
            throw new UserException(
                    "%s nests subgraphs more than %d deep; export it with fewer If, Loop or Scan nodes inside each other"
                            .formatted(file, MAX_SUBGRAPHS));
        }
        return new Extent(count, calls, subgraphs);
    }

    private List<GraphProto> subgraphs(AttributeProto attribute) {
        boolean graphs = attribute.getType() == AttributeProto.AttributeType.GRAPH
                || attribute.getType() == AttributeProto.AttributeType.GRAPHS;
        if (graphs && !attribute.getRefAttrName().isEmpty()) {
            // Each reference copies the subgraph of the call, and calls inside it multiply.
            throw new UserException(
                    "a function of %s takes the subgraph \"%s\" from its call, which this version does not know; export it without functions"
                            .formatted(file, attribute.getRefAttrName()));
        }
        List<GraphProto> all = new ArrayList<>(attribute.getGraphsList());
        if (attribute.hasG()) {
            all.add(attribute.getG());
        }
        return all;
    }

    private Extent function(String key, FunctionProto function) {
        Extent extent = known.get(key);
        if (extent == null) {
            if (open.contains(key)) {
                throw new UserException("the function " + name(key) + " of " + file + " calls itself" + through(key)
                        + "; export the model again");
            }
            if (open.size() >= MAX_CALLS) {
                throw tooDeep();
            }
            open.add(key);
            extent = extent(function.getNodeList());
            open.remove(key);
            known.put(key, extent);
        }
        return extent;
    }

    /** The last function of a circle, if it is another than the first; empty otherwise. */
    private String through(String key) {
        String last = key;
        for (String each : open) {
            last = each;
        }
        return last.equals(key) ? "" : ", through " + name(last);
    }

    private UserException tooDeep() {
        return new UserException(
                "%s has functions that call each other more than %d deep; export it with fewer levels of functions"
                        .formatted(file, MAX_CALLS));
    }
}
