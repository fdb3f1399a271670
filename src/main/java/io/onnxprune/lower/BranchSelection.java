// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.diag.UserException;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.GraphBuilder;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program;
import io.onnxprune.ir.Program.Branch;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.ir.Widening;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.ModelInterface;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.Outputs;
import io.onnxprune.runtime.Session;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * Replaces every {@code If} by the branch that a run over complete rows without a past takes. The condition is found
 * by running the part of the graph that computes it. So it may depend on shapes, positions and masks, but not on the
 * token ids.
 *
 * <pre>
 *     c = f(sizes)                         c = f(sizes)
 *     y = If(c) {then: y1 = A(x)}    ─▶    y = A(x)
 *               {else: y2 = B(x)}
 * </pre>
 */
final class BranchSelection {
    private final Program program;
    private final OnnxRuntime runtime;
    private final int length;
    private final Map<Node, Op> owners = new HashMap<>();
    private final Map<Node, Boolean> decisions = new HashMap<>();
    private final Map<Value, String> names = new HashMap<>();
    private final Set<String> taken;
    private final List<Node> nodes = new ArrayList<>();
    private final Map<String, Tensor> initializers;

    private BranchSelection(Program program, OnnxRuntime runtime, int length) {
        this.program = program;
        this.runtime = runtime;
        this.length = length;
        Graph graph = program.model().graph();
        this.taken = new HashSet<>(GraphBuilder.names(graph));
        this.initializers = new LinkedHashMap<>(graph.initializers());
        program.ops().stream().filter(op -> op.node().is("If")).forEach(op -> owners.put(op.node(), op));
    }

    /**
     * The model without {@code If} nodes, with nodes in an order of execution; {@code model} itself when it has none.
     *
     * @param length number of tokens in the rows that conditions are evaluated for
     * @throws UserException when a condition depends on the tokens or cannot be evaluated
     */
    static Model select(Model model, OnnxRuntime runtime, int length) {
        Program program = Program.of(model);
        BranchSelection selection = new BranchSelection(program, runtime, length);
        if (selection.owners.isEmpty()) {
            return model;
        }
        program.ops().forEach(selection::visit);
        return model.withGraph(model.graph()
                .withNodes(selection.nodes)
                .withInitializers(selection.initializers)
                .withValues(List.of()));
    }

    private void visit(Op op) {
        for (Branch branch : op.branch()) {
            if (branch.taken() != decision(branch.owner())) {
                return;
            }
        }
        if (op.node().is("If")) {
            boolean side = decision(op.node());
            List<Value> yields = yields(op.node(), side);
            for (int i = 0; i < yields.size(); i++) {
                String output = op.output(i) == null ? name(yields.get(i)) : name(op.output(i));
                if (!name(yields.get(i)).equals(output)) {
                    nodes.add(Node.of(output, "Identity", List.of(name(yields.get(i))), List.of(output), Map.of()));
                }
            }
            return;
        }
        Map<String, String> captured = new HashMap<>();
        op.inputs().stream().skip(op.node().inputs().size()).forEach(value -> captured.put(value.name(), name(value)));
        Node node = Renaming.captures(op.node(), captured);
        nodes.add(node.withInputs(op.inputs().stream()
                        .limit(node.inputs().size())
                        .map(value -> value == null ? "" : name(value))
                        .toList())
                .withOutputs(op.outputs().stream()
                        .map(value -> value == null ? "" : name(value))
                        .toList()));
    }

    private List<Value> yields(Node owner, boolean side) {
        return program.branchOutputs(owner).get(side ? 0 : 1);
    }

    /** The name of a value in the flat graph: its own, unless it comes from a branch and the name is in use. */
    private String name(Value value) {
        return names.computeIfAbsent(value, key -> {
            boolean top = value.producer() == null
                    ? value.constant() == null || program.initializers().get(value.name()) == value
                    : value.producer().branch().isEmpty();
            String name = value.name();
            for (int i = 1; !top && !taken.add(name); i++) {
                name = value.name() + "_" + i;
            }
            if (!top && value.producer() == null) {
                initializers.put(name, value.constant());
            }
            return name;
        });
    }

    private boolean decision(Node owner) {
        Boolean known = decisions.get(owner);
        if (known != null) {
            return known;
        }
        Op op = owners.get(owner);
        boolean side = evaluate(op);
        decisions.put(owner, side);
        // The branch's output gets the name of the If's output if possible, so that no copy is needed.
        List<Value> yields = yields(owner, side);
        for (int i = 0; i < yields.size(); i++) {
            Value value = yields.get(i);
            boolean inside =
                    value.producer() != null && value.producer().branch().contains(new Branch(owner, side));
            if (inside && op.output(i) != null && !names.containsKey(value)) {
                names.put(value, name(op.output(i)));
            }
        }
        return side;
    }

    private boolean evaluate(Op owner) {
        Value condition = owner.input(0);
        Tensor constant = condition.constant();
        if (constant != null) {
            if (constant.dtype() != DType.BOOL || constant.elements() != 1) {
                throw new UserException("the model is damaged: node %s branches on %s, which is no truth value"
                        .formatted(owner.node().label(), constant));
            }
            return constant.toLongs()[0] != 0;
        }
        Graph graph = Slice.of(program.model().graph(), nodes, initializers, name(condition));
        Model slice = Widening.widen(program.model().withGraph(graph));
        try {
            ModelInterface decoder = ModelInterface.of(program.model().graph());
            Slice.requireNoContents(graph, decoder.requireRows().name());
            return run(slice, decoder);
        } catch (UserException e) {
            throw new UserException(
                    "the branch that node %s takes in a run without a past cannot be determined: %s"
                            .formatted(owner.node().label(), e.getMessage()),
                    e);
        }
    }

    private boolean run(Model slice, ModelInterface decoder) {
        // Extents that the graph leaves open do not matter here, because these tensors have no elements.
        Map<String, HostTensor> feeds = decoder.wholeRows(new long[1][length], 1);
        Set<String> declared = new HashSet<>();
        slice.graph().inputs().forEach(input -> declared.add(input.name()));
        feeds.keySet().retainAll(declared);
        String output = slice.graph().outputs().get(0).name();
        try (Session session = runtime.open(slice, false);
                Outputs outputs = session.run(feeds, List.of(output))) {
            return outputs.tensor(output).toLongs()[0] != 0;
        }
    }

    /** Extracts the part of a graph that computes one value. */
    private static final class Slice {
        private static final String RESULT = "onnx_prune_condition";

        private Slice() {}

        static Graph of(Graph graph, List<Node> nodes, Map<String, Tensor> initializers, String value) {
            Set<String> needed = graph.withNodes(nodes).needed(List.of(value));
            List<Node> kept = new ArrayList<>(nodes);
            kept.removeIf(node -> node.outputs().stream().noneMatch(needed::contains));
            kept.add(Node.of(RESULT, "Identity", List.of(value), List.of(RESULT), Map.of()));
            Map<String, Tensor> used = new LinkedHashMap<>(initializers);
            used.keySet().retainAll(needed);
            List<ValueInfo> inputs = graph.givenInputs().stream()
                    .filter(input -> needed.contains(input.name()))
                    .toList();
            ValueInfo output = new ValueInfo(RESULT, DType.BOOL, null, new byte[0]);
            return new Graph("condition", inputs, List.of(output), List.of(), used, kept, new byte[0]);
        }

        /**
         * Checks that a value depends only on the number of tokens, not on their ids.
         *
         * @throws UserException when it depends on the ids
         */
        static void requireNoContents(Graph slice, String tokens) {
            Set<String> contents = new HashSet<>(Set.of(RESULT));
            for (int i = slice.nodes().size() - 1; i >= 0; i--) {
                Node node = slice.nodes().get(i);
                boolean sizes = node.domain().isEmpty() && (node.is("Shape") || node.is("Size"));
                if (!sizes && node.outputs().stream().anyMatch(contents::contains)) {
                    contents.addAll(node.reads());
                }
            }
            if (contents.contains(tokens)) {
                throw new UserException("its condition depends on the tokens");
            }
        }
    }
}
