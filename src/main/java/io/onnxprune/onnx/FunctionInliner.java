// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.onnx;

import ai.onnx.proto.OnnxMl.AttributeProto;
import ai.onnx.proto.OnnxMl.FunctionProto;
import ai.onnx.proto.OnnxMl.ModelProto;
import ai.onnx.proto.OnnxMl.NodeProto;
import ai.onnx.proto.OnnxMl.OperatorSetIdProto;
import com.google.protobuf.InvalidProtocolBufferException;
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
 * Replaces calls of model-local functions by their bodies, so that operator rules see standard operators. Functions
 * whose operator set versions differ from the model's are not inlined.
 */
public final class FunctionInliner {
    private final Map<String, FunctionProto> functions = new HashMap<>();
    private final Model model;
    private final ModelReader reader;
    private final Set<String> names = new HashSet<>();
    private int calls;

    private FunctionInliner(Model model, List<FunctionProto> all) {
        this.model = model;
        this.reader = new ModelReader(model.source());
        for (FunctionProto function : all) {
            if (function.getOpsetImportList().stream().allMatch(this::isCompatible)) {
                functions.put(
                        ModelLimits.key(function.getDomain(), function.getName(), function.getOverload()), function);
            }
        }
        collectNames(model.graph());
    }

    /** The model with all compatible calls inlined; {@code model} itself when it has no functions. */
    public static Model inline(Model model) {
        try {
            ModelProto rest = ModelProto.parseFrom(model.rest());
            if (rest.getFunctionsCount() == 0) {
                return model;
            }
            return new FunctionInliner(model, rest.getFunctionsList()).run();
        } catch (InvalidProtocolBufferException e) {
            throw new IllegalStateException("uninterpreted fields of " + model.source() + " cannot be read back", e);
        }
    }

    private Model run() throws InvalidProtocolBufferException {
        Map<String, Long> opsets = new LinkedHashMap<>(model.opsets());
        for (FunctionProto function : functions.values()) {
            function.getOpsetImportList()
                    .forEach(opset -> opsets.putIfAbsent(domain(opset.getDomain()), opset.getVersion()));
        }
        Graph graph = inline(model.graph());
        return new Model(
                model.irVersion(), opsets, graph, model.metadata(), model.externalData(), model.source(), model.rest());
    }

    private boolean isCompatible(OperatorSetIdProto opset) {
        Long version = model.opsets().get(domain(opset.getDomain()));
        return version == null || version == opset.getVersion();
    }

    private static String domain(String domain) {
        return domain.equals("ai.onnx") ? "" : domain;
    }

    private void collectNames(Graph graph) {
        names.addAll(graph.initializers().keySet());
        graph.inputs().forEach(input -> names.add(input.name()));
        for (Node node : graph.nodes()) {
            names.addAll(node.outputs());
            for (Attribute attribute : node.attributes().values()) {
                if (attribute instanceof Attribute.Body body) {
                    collectNames(body.graph());
                }
            }
        }
    }

    private Graph inline(Graph graph) throws InvalidProtocolBufferException {
        List<Node> nodes = new ArrayList<>();
        for (Node node : graph.nodes()) {
            expand(node, nodes);
        }
        return graph.withNodes(nodes);
    }

    private void expand(Node node, List<Node> target) throws InvalidProtocolBufferException {
        FunctionProto function = functions.get(ModelLimits.key(node.domain(), node.op(), overload(node)));
        if (function == null) {
            Node changed = node;
            for (Map.Entry<String, Attribute> attribute : node.attributes().entrySet()) {
                if (attribute.getValue() instanceof Attribute.Body body) {
                    changed = changed.withAttribute(attribute.getKey(), new Attribute.Body(inline(body.graph())));
                }
            }
            target.add(changed);
            return;
        }
        String prefix = (node.name().isEmpty() ? node.output(0) : node.name()) + "/";
        Map<String, String> renamed = new HashMap<>();
        renamed.put("", "");
        for (int i = 0; i < function.getInputCount(); i++) {
            renamed.put(function.getInput(i), node.input(i));
        }
        for (int i = 0; i < function.getOutputCount(); i++) {
            if (!node.output(i).isEmpty()) {
                renamed.put(function.getOutput(i), node.output(i));
            }
        }
        calls++;
        Call call = new Call(node, function, prefix);
        for (Node inner : reader.nodes(function.getNodeList())) {
            expand(copy(inner, call, renamed), target);
        }
    }

    /** A call that is replaced: its node, the function, and what the names of the copies begin with. */
    private record Call(Node node, FunctionProto function, String prefix) {}

    /**
     * A node of a function as a node of the graph that calls it.
     *
     * @param renamed the names of values there by those in the function; receives the names of the results
     */
    private Node copy(Node inner, Call call, Map<String, String> renamed) throws InvalidProtocolBufferException {
        List<String> inputs = inner.inputs().stream()
                .map(name -> renamed.getOrDefault(name, name))
                .toList();
        Map<String, Attribute> attributes = new LinkedHashMap<>();
        for (Map.Entry<String, Attribute> bound :
                bound(inner, call.node, call.function).entrySet()) {
            Attribute attribute = bound.getValue();
            attributes.put(
                    bound.getKey(),
                    attribute instanceof Attribute.Body body
                            ? new Attribute.Body(copy(body.graph(), call, renamed))
                            : attribute);
        }
        List<String> outputs = inner.outputs().stream()
                .map(name -> renamed.computeIfAbsent(name, key -> freshName(call.prefix + key)))
                .toList();
        String name = call.prefix + (inner.name().isEmpty() ? inner.output(0) : inner.name());
        return new Node(name, inner.domain(), inner.op(), inputs, outputs, attributes, inner.rest());
    }

    /** The body of a node of a function. It reads values of the function, and what it defines gets names of its own. */
    private Graph copy(Graph body, Call call, Map<String, String> outer) throws InvalidProtocolBufferException {
        Map<String, String> renamed = new HashMap<>(outer);
        Map<String, Tensor> initializers = new LinkedHashMap<>();
        body.initializers().forEach((name, tensor) -> {
            renamed.put(name, freshName(call.prefix + name));
            initializers.put(renamed.get(name), tensor);
        });
        List<ValueInfo> inputs = new ArrayList<>();
        for (ValueInfo input : body.inputs()) {
            renamed.put(input.name(), freshName(call.prefix + input.name()));
            inputs.add(input.withName(renamed.get(input.name())));
        }
        // A name that the body defines is not one of the function, even if that has the same.
        body.nodes().forEach(node -> renamed.keySet().removeAll(node.outputs()));
        renamed.put("", "");
        List<Node> nodes = new ArrayList<>();
        for (Node node : body.nodes()) {
            nodes.add(copy(node, call, renamed));
        }
        return new Graph(
                body.name(),
                inputs,
                renamed(body.outputs(), renamed),
                renamed(body.values(), renamed),
                initializers,
                nodes,
                body.rest());
    }

    private static List<ValueInfo> renamed(List<ValueInfo> values, Map<String, String> names) {
        return values.stream()
                .map(value -> value.withName(names.getOrDefault(value.name(), value.name())))
                .toList();
    }

    private static String overload(Node node) throws InvalidProtocolBufferException {
        return node.rest().length == 0 ? "" : NodeProto.parseFrom(node.rest()).getOverload();
    }

    private String freshName(String base) {
        return names.add(base) ? base : freshName(base + "_" + calls);
    }

    /**
     * The attributes of a body node. References are replaced by the attributes of the call, or by the function's
     * defaults.
     */
    private Map<String, Attribute> bound(Node inner, Node call, FunctionProto function)
            throws InvalidProtocolBufferException {
        Map<String, Attribute> bound = new LinkedHashMap<>();
        for (Map.Entry<String, Attribute> entry : inner.attributes().entrySet()) {
            String reference = entry.getValue() instanceof Attribute.Opaque opaque
                    ? AttributeProto.parseFrom(opaque.serialized()).getRefAttrName()
                    : "";
            if (reference.isEmpty()) {
                bound.put(entry.getKey(), entry.getValue());
            } else if (call.attributes().containsKey(reference)) {
                bind(inner, entry.getKey(), call.attributes().get(reference), bound);
            } else {
                for (AttributeProto attribute : function.getAttributeProtoList()) {
                    if (attribute.getName().equals(reference)) {
                        bind(inner, entry.getKey(), reader.attribute(attribute), bound);
                    }
                }
            }
        }
        return bound;
    }

    /** Gives an attribute of a call the name that it has in the body. */
    private void bind(Node inner, String name, Attribute value, Map<String, Attribute> bound)
            throws InvalidProtocolBufferException {
        if (!(value instanceof Attribute.Opaque opaque)) {
            bound.put(name, value);
            return;
        }
        AttributeProto proto = AttributeProto.parseFrom(opaque.serialized()).toBuilder()
                .setName(name)
                .build();
        Tensor tensor = inner.is("Constant") && inner.domain().isEmpty() ? reader.constant(proto) : null;
        bound.put(
                tensor == null ? name : "value",
                tensor == null ? new Attribute.Opaque(proto.toByteArray()) : new Attribute.Constant(tensor));
    }
}
