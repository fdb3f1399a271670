// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Program.Value;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.Predicate;

/**
 * Where the token ids of a model go: the tables that they index, and the first use of them that is no look-up.
 *
 * <p>Ids may be cast, reshaped and selected by position on their way (ONNX operators Cast, Reshape, Gather along
 * positions, ...). An operator that computes with the numbers themselves relies on what each number stands for.
 */
public final class TokenFlow {
    /** Operators whose first result holds the ids of their first operand, in the same order or a choice of them. */
    private static final Set<String> CARRIERS = Set.of(
            "Cast",
            "Expand",
            "Flatten",
            "Gather",
            "Identity",
            "Reshape",
            "Slice",
            "Squeeze",
            "Tile",
            "Transpose",
            "Unsqueeze");
    /** Operators that do not look at the numbers. */
    private static final Set<String> BLIND = Set.of("Shape", "Size");
    /** Look-ups of rows: the name of the attribute with the indexed axis of operand 0. */
    private static final Map<String, String> LOOK_UPS = Map.of("Gather", "axis", "GatherBlockQuantized", "gather_axis");

    private final DimensionAnalysis analysis;
    private final Set<Op> lookUps = new LinkedHashSet<>();
    private final Set<Dim.Atom> tables = new LinkedHashSet<>();
    private String obstacle;

    private TokenFlow(DimensionAnalysis analysis) {
        this.analysis = analysis;
    }

    /** Follows the input of token ids. There is nothing to follow in a model that takes embeddings. */
    static TokenFlow of(DimensionAnalysis analysis) {
        TokenFlow flow = new TokenFlow(analysis);
        analysis.tokens().ifPresent(flow::follow);
        return flow;
    }

    /** The dimensions that the ids index, in the order of the program. */
    public Set<Dim.Atom> tables() {
        return tables;
    }

    /** Why ids cannot be given new numbers, with the node; empty when they only look rows up. */
    public Optional<String> obstacle() {
        return Optional.ofNullable(obstacle).or(this::foreignLookUp);
    }

    private void follow(Value input) {
        Deque<Value> waiting = new ArrayDeque<>(List.of(input));
        Set<Value> seen = new HashSet<>(waiting);
        while (!waiting.isEmpty()) {
            for (Use use : waiting.pop().uses()) {
                Value carried = visit(use);
                if (carried != null && seen.add(carried)) {
                    waiting.add(carried);
                }
            }
        }
    }

    /** Handles one use of ids; returns the value that holds ids as well, or null. */
    private Value visit(Use use) {
        String kind = use.op().node().op();
        if (use.input() == 1 && LOOK_UPS.containsKey(kind)) {
            lookUp(use.op());
            return null;
        }
        if (use.input() == 0 && CARRIERS.contains(kind)) {
            return use.op().output(0);
        }
        if (!BLIND.contains(kind)) {
            refuse("token ids are used other than to look up rows, at node "
                    + use.op().node().label());
        }
        return null;
    }

    private void lookUp(Op op) {
        Dim axis = indexed(op).get(0);
        if (axis.resolve() instanceof Dim.Atom atom && !atom.isDynamic()) {
            lookUps.add(op);
            tables.add(atom);
        } else {
            refuse("the table that token ids look up has rows that cannot be taken apart, at node "
                    + op.node().label());
        }
    }

    private void refuse(String reason) {
        if (obstacle == null) {
            obstacle = reason;
        }
    }

    /** A look-up in the same table by other numbers than the ids. */
    private Optional<String> foreignLookUp() {
        Predicate<Op> foreign =
                op -> !lookUps.contains(op) && indexed(op).stream().anyMatch(dim -> !disjoint(dim, tables));
        return analysis.program().ops().stream()
                .filter(foreign)
                .findFirst()
                .map(op -> "the table of tokens is also looked up by other numbers, at node "
                        + op.node().label());
    }

    private static boolean disjoint(Dim dim, Set<Dim.Atom> atoms) {
        return dim.atoms().stream().noneMatch(atoms::contains);
    }

    /** The dimensions of operand 0 that an operator selects along by index; none for other operators. */
    private List<Dim> indexed(Op op) {
        Dim[] data = op.inputs().isEmpty() ? null : analysis.operand(op, 0);
        String kind = op.node().op();
        if (data == null || data.length == 0) {
            return List.of();
        }
        if (LOOK_UPS.containsKey(kind) || kind.equals("GatherElements")) {
            long axis = op.node().intAttribute(LOOK_UPS.getOrDefault(kind, "axis"), 0);
            return List.of(data[RuleContext.axis(axis, data.length)]);
        }
        return kind.equals("GatherND") ? new ArrayList<>(List.of(data)) : List.of();
    }
}
