// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import io.onnxprune.diag.UserException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The use-def view of a model: every operator application with its input and output values. Branches of an {@code If}
 * are flattened in front of the If node. Values are objects, so equal names in sibling branches do not clash.
 */
public final class Program {
    /** An SSA value. Constants (initializers and outputs of Constant nodes) carry their tensor. */
    public static final class Value {
        private final String name;
        private final Tensor constant;
        private Op producer;
        private final List<Use> uses = new ArrayList<>();
        private ValueInfo info;

        private Value(String name, Tensor constant) {
            this.name = name;
            this.constant = constant;
        }

        public String name() {
            return name;
        }

        /** The tensor of a constant; null for any other value. */
        public Tensor constant() {
            return constant;
        }

        /** The operator application that produces this value; null for graph inputs and initializers. */
        public Op producer() {
            return producer;
        }

        public List<Use> uses() {
            return uses;
        }

        /**
         * The value that this one is a cast or a copy of, through any number of them; this value itself if it is
         * neither.
         */
        public Value origin() {
            Value current = this;
            while (current.producer != null && current.producer.isCopy()) {
                current = current.producer.input(0);
            }
            return current;
        }

        /** The declared type from graph inputs, outputs or value_info; null when nothing is declared. */
        public ValueInfo info() {
            return info;
        }

        @Override
        public String toString() {
            return name;
        }
    }

    /** A use of a value: the consumer and the index of its input. */
    public record Use(Op op, int input) {}

    /**
     * One operator application.
     *
     * @param inputs operands, null when omitted. For a node with an opaque body (Loop, Scan, ...) the values that the
     *     body captures follow
     * @param outputs results, null when omitted
     * @param branch the branches of If nodes that contain this application, outermost first; empty at the top level
     * @param index position in {@link Program#ops}
     */
    public record Op(Node node, List<Value> inputs, List<Value> outputs, List<Branch> branch, int index) {
        /** The operand at {@code position}; null when it is omitted. */
        public Value input(int position) {
            return position < inputs.size() ? inputs.get(position) : null;
        }

        /** The result at {@code position}; null when it is omitted. */
        public Value output(int position) {
            return position < outputs.size() ? outputs.get(position) : null;
        }

        private boolean isCopy() {
            return node.is("Identity") || node.is("Cast") || node.is("Concat") && inputs.size() == 1;
        }

        @Override
        public boolean equals(Object other) {
            return this == other;
        }

        @Override
        public int hashCode() {
            return index;
        }

        @Override
        public String toString() {
            return node.label();
        }
    }

    /**
     * One branch of an If.
     *
     * @param taken true for the then-branch, false for the else-branch
     */
    public record Branch(Node owner, boolean taken) {}

    private final Model model;
    private final List<Op> ops = new ArrayList<>();
    private final List<Value> inputs = new ArrayList<>();
    private final List<Value> outputs = new ArrayList<>();
    private final Map<String, Value> initializers = new LinkedHashMap<>();
    private final Map<Node, List<List<Value>>> branchOutputs = new HashMap<>();

    private Program(Model model) {
        this.model = model;
    }

    /**
     * Builds the use-def view of {@code model}.
     *
     * @throws UserException when a node reads a value that is not defined, or an If lacks a branch
     */
    public static Program of(Model model) {
        Program program = new Program(model);
        Graph graph = model.graph();
        Map<String, Value> scope = new HashMap<>();
        graph.initializers().forEach((name, tensor) -> {
            Value value = new Value(name, tensor);
            scope.put(name, value);
            program.initializers.put(name, value);
        });
        for (ValueInfo info : graph.givenInputs()) {
            Value value = new Value(info.name(), null);
            value.info = info;
            scope.put(info.name(), value);
            program.inputs.add(value);
        }
        program.walk(graph, scope, List.of());
        for (ValueInfo info : graph.outputs()) {
            Value value = program.resolve(scope, info.name(), "graph output");
            value.info = info;
            program.outputs.add(value);
        }
        return program;
    }

    public Model model() {
        return model;
    }

    /** All operator applications, in an order of execution. */
    public List<Op> ops() {
        return ops;
    }

    /** Graph inputs that are not initializers. */
    public List<Value> inputs() {
        return inputs;
    }

    public List<Value> outputs() {
        return outputs;
    }

    /**
     * The graph input with this name.
     *
     * @throws java.util.NoSuchElementException when there is none
     */
    public Value input(String name) {
        return named(inputs, name);
    }

    /**
     * The graph output with this name.
     *
     * @throws java.util.NoSuchElementException when there is none
     */
    public Value output(String name) {
        return named(outputs, name);
    }

    private static Value named(List<Value> values, String name) {
        return values.stream()
                .filter(value -> value.name().equals(name))
                .findFirst()
                .orElseThrow();
    }

    /** All constants that operator applications consume, by name: initializers and outputs of Constant nodes. */
    public Map<String, Value> constants() {
        Map<String, Value> constants = new LinkedHashMap<>();
        for (Op op : ops()) {
            for (Value input : op.inputs()) {
                if (input != null && input.constant() != null) {
                    constants.put(input.name(), input);
                }
            }
        }
        return constants;
    }

    /** The initializers of the top-level graph, by name. */
    public Map<String, Value> initializers() {
        return initializers;
    }

    /** The output values of the then-branch and of the else-branch of an If, in this order. */
    public List<List<Value>> branchOutputs(Node owner) {
        return branchOutputs.get(owner);
    }

    private void walk(Graph graph, Map<String, Value> scope, List<Branch> branch) {
        for (Node node : NodeOrder.sorted(graph, scope.keySet())) {
            List<Value> operands = new ArrayList<>();
            for (String name : node.inputs()) {
                operands.add(name.isEmpty() ? null : resolve(scope, name, node.label()));
            }
            if (node.is("If")) {
                walkBranches(node, scope, branch);
            } else {
                for (String captured : NodeOrder.captures(node)) {
                    if (scope.containsKey(captured)) {
                        operands.add(scope.get(captured));
                    }
                }
            }
            Tensor constant = constantOf(node);
            List<Value> results = new ArrayList<>();
            for (String name : node.outputs()) {
                Value value = name.isEmpty() ? null : new Value(name, constant);
                results.add(value);
                if (value != null) {
                    scope.put(name, value);
                }
            }
            Op op = new Op(node, java.util.Collections.unmodifiableList(operands), results, branch, ops.size());
            ops.add(op);
            for (int i = 0; i < operands.size(); i++) {
                if (operands.get(i) != null) {
                    operands.get(i).uses.add(new Use(op, i));
                }
            }
            for (Value value : results) {
                if (value != null) {
                    value.producer = op;
                }
            }
        }
        for (ValueInfo info : graph.values()) {
            Value value = scope.get(info.name());
            if (value != null && value.info == null) {
                value.info = info;
            }
        }
    }

    private void walkBranches(Node node, Map<String, Value> scope, List<Branch> branch) {
        List<List<Value>> yields = new ArrayList<>();
        for (String key : List.of("then_branch", "else_branch")) {
            if (!(node.attributes().get(key) instanceof Attribute.Body body)) {
                throw new UserException("node " + node.label() + " has no " + key + "; the model is damaged");
            }
            Map<String, Value> inner = new HashMap<>(scope);
            body.graph().initializers().forEach((name, tensor) -> inner.put(name, new Value(name, tensor)));
            List<Branch> path = new ArrayList<>(branch);
            path.add(new Branch(node, key.equals("then_branch")));
            walk(body.graph(), inner, List.copyOf(path));
            List<Value> values = new ArrayList<>();
            for (ValueInfo info : body.graph().outputs()) {
                values.add(resolve(inner, info.name(), node.label()));
            }
            yields.add(values);
        }
        branchOutputs.put(node, yields);
    }

    private Value resolve(Map<String, Value> scope, String name, String where) {
        Value value = scope.get(name);
        if (value == null) {
            throw new UserException("the model is damaged: " + where + " reads \"" + name
                    + "\", which no input, initializer or earlier node defines");
        }
        return value;
    }

    /** The numeric tensor of a Constant node; null for any other node or attribute. */
    private static Tensor constantOf(Node node) {
        if (!node.is("Constant") || !node.domain().isEmpty()) {
            return null;
        }
        if (node.attributes().get("value") instanceof Attribute.Constant constant) {
            return constant.tensor();
        }
        if (node.attributes().get("value_int") instanceof Attribute.Int value) {
            return Tensor.ofIndices(DType.INT64, new long[0], value.value());
        }
        if (node.attributes().get("value_ints") instanceof Attribute.Ints value) {
            return Tensor.ofIndices(
                    DType.INT64,
                    new long[] {value.values().size()},
                    value.values().stream().mapToLong(Long::longValue).toArray());
        }
        if (node.attributes().get("value_float") instanceof Attribute.Real value) {
            return Tensor.ofFloats(DType.FLOAT, new long[0], value.value());
        }
        return null;
    }
}
