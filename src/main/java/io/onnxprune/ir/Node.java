// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * A node: one operator application. Inputs and outputs are value names; the empty name stands for an omitted optional
 * one. Immutable and compared by identity. The {@code with...} methods return a changed copy.
 */
public final class Node {
    private final String name;
    private final String domain;
    private final String op;
    private final List<String> inputs;
    private final List<String> outputs;
    private final Map<String, Attribute> attributes;
    private final byte[] rest;

    /**
     * Creates a node.
     *
     * @param rest other NodeProto fields (documentation, metadata), serialized; they are kept without being
     *     interpreted
     */
    public Node(
            String name,
            String domain,
            String op,
            List<String> inputs,
            List<String> outputs,
            Map<String, Attribute> attributes,
            byte[] rest) {
        this.name = name;
        this.domain = domain.equals("ai.onnx") ? "" : domain;
        this.op = op;
        this.inputs = List.copyOf(inputs);
        this.outputs = List.copyOf(outputs);
        this.attributes = java.util.Collections.unmodifiableMap(new LinkedHashMap<>(attributes));
        this.rest = rest;
    }

    /** A new node of the default domain. */
    public static Node of(
            String name, String op, List<String> inputs, List<String> outputs, Map<String, Attribute> attributes) {
        return new Node(name, "", op, inputs, outputs, attributes, new byte[0]);
    }

    public String name() {
        return name;
    }

    /** The operator's domain; the default ONNX domain is the empty string. */
    public String domain() {
        return domain;
    }

    public String op() {
        return op;
    }

    public List<String> inputs() {
        return inputs;
    }

    public List<String> outputs() {
        return outputs;
    }

    public Map<String, Attribute> attributes() {
        return attributes;
    }

    /** Other NodeProto fields, serialized; they are kept without being interpreted. */
    public byte[] rest() {
        return rest;
    }

    /** The name of input {@code index}, or "" when it is omitted. */
    public String input(int index) {
        return index < inputs.size() ? inputs.get(index) : "";
    }

    /**
     * Names of the values that this node and its bodies consume. The empty name of omitted inputs may be among them.
     */
    public Set<String> reads() {
        Set<String> names = new LinkedHashSet<>(inputs);
        for (Attribute attribute : attributes.values()) {
            if (attribute instanceof Attribute.Body body) {
                names.addAll(body.graph().reads());
            }
        }
        return names;
    }

    /** The name of output {@code index}, or "" when it is omitted. */
    public String output(int index) {
        return index < outputs.size() ? outputs.get(index) : "";
    }

    public boolean is(String operator) {
        return op.equals(operator);
    }

    public long intAttribute(String key, long defaultValue) {
        return attributes.get(key) instanceof Attribute.Int value ? value.value() : defaultValue;
    }

    public float floatAttribute(String key, float defaultValue) {
        return attributes.get(key) instanceof Attribute.Real value ? value.value() : defaultValue;
    }

    public String textAttribute(String key, String defaultValue) {
        return attributes.get(key) instanceof Attribute.Text value ? value.value() : defaultValue;
    }

    /** The values of an INTS attribute; null when it is absent. */
    public List<Long> intsAttribute(String key) {
        return attributes.get(key) instanceof Attribute.Ints value ? value.values() : null;
    }

    public Node withInput(int index, String value) {
        List<String> changed = new ArrayList<>(inputs);
        while (changed.size() <= index) {
            changed.add("");
        }
        changed.set(index, value);
        return withInputs(changed);
    }

    public Node withInputs(List<String> changed) {
        return new Node(name, domain, op, changed, outputs, attributes, rest);
    }

    public Node withOutputs(List<String> changed) {
        return new Node(name, domain, op, inputs, changed, attributes, rest);
    }

    public Node withName(String changed) {
        return new Node(changed, domain, op, inputs, outputs, attributes, rest);
    }

    public Node withAttribute(String key, Attribute value) {
        Map<String, Attribute> changed = new LinkedHashMap<>(attributes);
        changed.put(key, value);
        return new Node(name, domain, op, inputs, outputs, changed, rest);
    }

    /** The label of this node in messages: {@code "/layers.0/Add" (Add)}. */
    public String label() {
        return '"' + (name.isEmpty() ? output(0) : name) + "\" (" + (domain.isEmpty() ? "" : domain + ".") + op + ")";
    }

    @Override
    public String toString() {
        return label();
    }
}
