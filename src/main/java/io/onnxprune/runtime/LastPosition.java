// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.GraphBuilder;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.ir.ValueInfo.Extent;
import io.onnxprune.runtime.Session.Io;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/**
 * Models that give logits of the last position only, which is all that generation needs: a selection before the last
 * product spares the product all other positions. A loss needs all positions.
 */
public final class LastPosition {
    private static final String PREFIX = "onnx_prune_last_";

    /** Operators that select positions. */
    private static final Set<String> SELECTIONS = Set.of("Gather", "GatherND", "Slice");

    /** Products with a constant matrix, and the position of what is multiplied. */
    private static final Set<String> PRODUCTS = Set.of(
            "MatMul",
            "Gemm",
            "MatMulNBits",
            "MatMulInteger",
            "MatMulIntegerToFloat",
            "DynamicQuantizeMatMul",
            "FusedMatMul");

    private LastPosition() {}

    /**
     * A model without the selection of the last position, so that it gives logits for all; empty when no selection is
     * found between the logits and what the network computes.
     */
    public static Optional<Model> removed(Model model) {
        Optional<Io> logits = ModelInterface.of(model.graph()).logits();
        if (logits.isEmpty()) {
            return Optional.empty();
        }
        Program program = Program.of(model);
        Map<Value, Op> consumers = new HashMap<>();
        Op selection = nearest(program.output(logits.get().name()), consumers, LastPosition::selectsPositions);
        return selection == null ? Optional.empty() : Optional.of(without(model, selection, consumers, logits.get()));
    }

    /** A copy in which the selection, and what drops or adds the axis of positions after it, pass their input on. */
    private static Model without(Model model, Op selection, Map<Value, Op> consumers, Io logits) {
        Set<Node> passed = new HashSet<>(Set.of(selection.node()));
        for (Op op = consumers.get(selection.output(0)); op != null; op = consumers.get(op.output(0))) {
            if ((op.node().is("Unsqueeze") || op.node().is("Squeeze")) && isOfPositions(axes(op))) {
                passed.add(op.node());
            }
        }
        Graph graph = model.graph();
        List<Node> nodes = new ArrayList<>();
        for (Node node : graph.nodes()) {
            nodes.add(
                    passed.contains(node)
                            ? Node.of(node.name(), "Identity", List.of(node.input(0)), node.outputs(), Map.of())
                            : node);
        }
        List<ValueInfo> outputs = new ArrayList<>();
        for (ValueInfo output : graph.outputs()) {
            boolean isLogits = output.name().equals(logits.name()) && output.shape() != null;
            outputs.add(isLogits ? output.withShape(allPositions(output.shape())) : output);
        }
        return model.withGraph(
                graph.withNodes(nodes).withInterface(graph.inputs(), outputs).withValues(List.of()));
    }

    private static List<Extent> allPositions(List<Extent> shape) {
        Extent any = new Extent(-1, PREFIX + "positions");
        return List.of(shape.get(0), any, shape.get(shape.size() - 1));
    }

    /**
     * A model that gives logits of the last position only: a selection before its last product. A model that has one is
     * returned as it is.
     *
     * @throws UserException when the model is no language model, or its logits are not of a product with a constant
     */
    public static Model added(Model model) {
        String logits = ModelInterface.of(model.graph()).requireLogits().name();
        if (removed(model).isPresent()) {
            return model;
        }
        Program program = Program.of(model);
        Op head = nearest(
                program.output(logits),
                new HashMap<>(),
                op -> PRODUCTS.contains(op.node().op()));
        if (head == null || head.input(0) == null || !head.branch().isEmpty()) {
            throw new UserException("logits of the last position only cannot be had: \"" + logits
                    + "\" is not computed by a product with a constant; leave --last-logits out");
        }
        Graph graph = model.graph();
        GraphBuilder builder = new GraphBuilder(PREFIX, GraphBuilder.names(graph));
        String last = builder.add(
                "Gather", List.of(head.input(0).name(), builder.index(-1)), Map.of("axis", new Attribute.Int(1)));
        String kept = model.opset() >= 13
                ? builder.add("Unsqueeze", last, builder.ints(1))
                : builder.add("Unsqueeze", List.of(last), Map.of("axes", new Attribute.Ints(List.of(1L))));
        List<Node> nodes = new ArrayList<>();
        for (Node node : graph.nodes()) {
            if (node.equals(head.node())) {
                nodes.addAll(builder.nodes());
                nodes.add(node.withInput(0, kept));
            } else {
                nodes.add(node);
            }
        }
        Map<String, Tensor> initializers = new LinkedHashMap<>(graph.initializers());
        initializers.putAll(builder.initializers());
        List<ValueInfo> outputs = new ArrayList<>();
        for (ValueInfo output : graph.outputs()) {
            boolean isLogits = output.name().equals(logits)
                    && output.shape() != null
                    && output.shape().size() == 3;
            outputs.add(
                    isLogits
                            ? output.withShape(List.of(
                                    output.shape().get(0),
                                    Extent.of(1),
                                    output.shape().get(2)))
                            : output);
        }
        return model.withGraph(graph.withNodes(nodes)
                .withInitializers(initializers)
                .withInterface(graph.inputs(), outputs)
                .withValues(List.of()));
    }

    /** Finds operators from the end of a network backwards. */
    private interface Wanted {
        boolean test(Op op);
    }

    /**
     * The nearest operator before a value that is wanted; null when there is none up to the first sum of two computed
     * values, where the residual stream begins.
     *
     * @param consumers receives the operator through which each value was reached
     */
    private static Op nearest(Value end, Map<Value, Op> consumers, Wanted wanted) {
        Deque<Value> open = new ArrayDeque<>(List.of(end));
        Set<Op> seen = new HashSet<>();
        while (!open.isEmpty()) {
            Op op = open.poll().producer();
            if (op == null || !seen.add(op)) {
                continue;
            }
            if (wanted.test(op)) {
                return op;
            }
            List<Value> computed = op.inputs().stream()
                    .filter(input -> input != null && input.constant() == null)
                    .toList();
            boolean sum = op.node().is("Add") && computed.size() == 2
                    || op.node().op().startsWith("Skip");
            for (Value input : sum ? List.<Value>of() : computed) {
                consumers.putIfAbsent(input, op);
                open.add(input);
            }
        }
        return null;
    }

    /** Whether an operator takes single positions out of rows: along axis 1 of its first input. */
    private static boolean selectsPositions(Op op) {
        Node node = op.node();
        if (!SELECTIONS.contains(node.op())
                || op.input(0) == null
                || op.input(0).constant() != null) {
            return false;
        }
        return switch (node.op()) {
            case "Gather" -> isOfPositions(List.of(node.intAttribute("axis", 0)));
            case "Slice" -> isOfPositions(axes(op)) && startsAtTheEnd(op);
            default -> true;
        };
    }

    private static boolean isOfPositions(List<Long> axes) {
        return axes.size() == 1 && (axes.get(0) == 1 || axes.get(0) == -2);
    }

    private static boolean startsAtTheEnd(Op op) {
        Value starts = op.input(1);
        List<Long> first = op.node().intsAttribute("starts");
        return starts == null
                ? first != null && first.equals(List.of(-1L))
                : starts.constant() == null || starts.constant().toLongs()[0] == -1;
    }

    /** The axes that an operator is about, from its attribute or its constant input; empty when unknown. */
    private static List<Long> axes(Op op) {
        int input = op.node().is("Slice") ? 3 : 1;
        Value given = op.input(input);
        if (given != null && given.constant() != null) {
            List<Long> axes = new ArrayList<>();
            for (long axis : given.constant().toLongs()) {
                axes.add(axis);
            }
            return axes;
        }
        List<Long> attribute = op.node().intsAttribute("axes");
        return attribute == null ? List.of() : attribute;
    }
}
