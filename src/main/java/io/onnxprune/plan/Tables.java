// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.dims.Dim;
import io.onnxprune.dims.DimensionAnalysis;
import io.onnxprune.dims.Role;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Program.Value;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Stream;

/**
 * Constants that provably are tables and no weights: rotary angles and masks. Only what follows from positions tells a
 * table: a constant is one if it meets values that depend on the tokens only
 * <ul>
 *   <li>after a sine or cosine,
 *   <li>as the rotary table of a fused operator,
 *   <li>as a factor that varies with the position, as the tables of a rotary embedding do,
 *   <li>element by element without any axis of fixed extent, as masks do, or
 *   <li>as a term of attention scores that is the same for all heads.
 * </ul>
 */
final class Tables {
    private static final Set<String> ELEMENTWISE =
            Set.of("Add", "Sub", "Mul", "Div", "Where", "Min", "Max", "And", "Or", "Equal", "Less", "Greater");

    private static final Set<String> SELECTING = Set.of("Gather", "GatherElements", "GatherND", "Slice");

    /** Operators between a term of scores and their softmax or their product: scales, caps and further terms. */
    private static final int STEPS = 5;

    /** Inputs of rotary tables, by the specification of the operator. */
    private static final Map<String, Set<Integer>> ROTARY = Map.of(
            "RotaryEmbedding", Set.of(1, 2),
            "com.microsoft.RotaryEmbedding", Set.of(2, 3),
            "com.microsoft.GroupQueryAttention", Set.of(7, 8),
            "com.microsoft.SparseAttention", Set.of(9, 10),
            "com.microsoft.PagedAttention", Set.of(8, 9));

    private final Structure structure;
    private final DimensionAnalysis analysis;
    private final Set<Value> ofTokens;
    /** The results of If nodes that a value of a branch becomes. */
    private final Map<Value, List<Value>> yielded = new HashMap<>();

    Tables(Structure structure) {
        this.structure = structure;
        this.analysis = structure.analysis();
        for (Op op : analysis.program().ops()) {
            if (op.node().is("If")) {
                for (List<Value> yields : analysis.program().branchOutputs(op.node())) {
                    for (int i = 0; i < yields.size(); i++) {
                        yielded.computeIfAbsent(yields.get(i), key -> new ArrayList<>())
                                .add(op.output(i));
                    }
                }
            }
        }
        this.ofTokens = ofTokens();
    }

    /** The values that depend on the token ids or on the state of earlier tokens, not only on how many there are. */
    private Set<Value> ofTokens() {
        Set<Value> found = new HashSet<>();
        Set<Value> tokens = tokens();
        for (Value input : analysis.program().inputs()) {
            boolean state = input.info() != null && input.info().dtype().isFloat();
            if (state || tokens.isEmpty() || tokens.contains(input)) {
                found.add(input);
            }
        }
        for (Op op : analysis.program().ops()) {
            if (!isSize(op.node()) && op.inputs().stream().anyMatch(found::contains)) {
                found.addAll(op.outputs());
            }
            op.outputs().stream()
                    .filter(found::contains)
                    .flatMap(value -> yielded.getOrDefault(value, List.of()).stream())
                    .forEach(found::add);
        }
        return found;
    }

    /** The graph inputs whose values select rows of the vocabulary's table. */
    private Set<Value> tokens() {
        Set<Value> tokens = new HashSet<>();
        analysis.constantUses().forEach((use, dims) -> {
            boolean vocabulary = use.input() == 0
                    && dims.length > 1
                    && dims[0].atoms().stream().anyMatch(atom -> structure.role(atom) == Role.VOCABULARY);
            Value index = vocabulary ? use.op().input(1) : null;
            if (index != null) {
                tokens.addAll(inputsOf(index));
            }
        });
        return tokens;
    }

    private static Set<Value> inputsOf(Value value) {
        Set<Value> seen = new HashSet<>();
        Set<Value> inputs = new HashSet<>();
        Deque<Value> open = new ArrayDeque<>(List.of(value));
        while (!open.isEmpty()) {
            Value next = open.pop();
            if (!seen.add(next) || next.constant() != null) {
                continue;
            }
            Op producer = next.producer();
            if (producer == null) {
                inputs.add(next);
            } else if (!isSize(producer.node())) {
                producer.inputs().stream().filter(input -> input != null).forEach(open::push);
            }
        }
        return inputs;
    }

    private static boolean isSize(Node node) {
        return node.domain().isEmpty() && (node.is("Shape") || node.is("Size"));
    }

    /** Whether a constant provably is a table. */
    boolean isTable(Value constant) {
        return !constant.uses().isEmpty() && isTable(constant, false, new HashSet<>());
    }

    /**
     * Whether only positions take part in what becomes of {@code value}.
     *
     * @param selected whether positions have selected it
     */
    private boolean isTable(Value value, boolean selected, Set<Value> seen) {
        if (!seen.add(value)) {
            return true;
        }
        return !analysis.program().outputs().contains(value)
                && value.uses().stream().allMatch(use -> isTableAt(use, value, selected, seen))
                && yielded.getOrDefault(value, List.of()).stream().allMatch(result -> isTable(result, selected, seen));
    }

    private boolean isTableAt(Use use, Value value, boolean selected, Set<Value> seen) {
        Node node = use.op().node();
        boolean angles = node.domain().isEmpty() && (node.is("Cos") || node.is("Sin"));
        if (isSize(node) || angles || isRotary(node, use.input())) {
            return true;
        }
        if (use.op().inputs().stream().noneMatch(ofTokens::contains)) {
            boolean selects = selected || use.input() == 0 && SELECTING.contains(node.op()) && readsPositions(use.op());
            return use.op().outputs().stream().allMatch(result -> result == null || isTable(result, selects, seen));
        }
        Dim[] dims = analysis.dims(value);
        if (dims == null || !node.domain().isEmpty() || !ELEMENTWISE.contains(node.op())) {
            return false;
        }
        boolean varies = selected || Stream.of(dims).anyMatch(Dim::isDynamic);
        return varies && (node.is("Mul") || isOpen(dims, dims.length))
                || isOpen(dims, dims.length - 2) && isTermOfScores(use.op(), value);
    }

    /** Whether the first {@code count} of some axes have no fixed extent but 1. */
    private static boolean isOpen(Dim[] dims, int count) {
        return Stream.of(dims)
                .limit(Math.max(0, count))
                .flatMap(dim -> dim.atoms().stream())
                .allMatch(atom -> atom.isDynamic() || atom.size(0) == 1);
    }

    private static boolean readsPositions(Op op) {
        return op.inputs().stream().skip(1).anyMatch(input -> input != null && input.constant() == null);
    }

    /** Whether a value is added to, or chosen in place of, products of two activations that go into a softmax. */
    private boolean isTermOfScores(Op op, Value term) {
        return !op.node().is("Mul")
                && goesIntoSoftmax(op.output(0), STEPS)
                && op.inputs().stream().anyMatch(input -> input != term && isProduct(input, STEPS));
    }

    private static boolean goesIntoSoftmax(Value value, int steps) {
        return steps > 0
                && value.uses().stream()
                        .anyMatch(use -> use.op().node().is("Softmax")
                                || ELEMENTWISE.contains(use.op().node().op())
                                        && goesIntoSoftmax(use.op().output(0), steps - 1));
    }

    private boolean isProduct(Value value, int steps) {
        Op producer = value == null || steps == 0 ? null : value.producer();
        if (producer == null) {
            return false;
        }
        boolean product = analysis.facts().contractions().stream()
                .anyMatch(contraction ->
                        !contraction.withConstant() && contraction.op().equals(producer));
        return product
                || ELEMENTWISE.contains(producer.node().op())
                        && producer.inputs().stream().anyMatch(input -> isProduct(input, steps - 1));
    }

    private static boolean isRotary(Node node, int input) {
        String name = node.domain().isEmpty() ? node.op() : node.domain() + '.' + node.op();
        return ROTARY.getOrDefault(name, Set.of()).contains(input);
    }
}
