// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import io.onnxprune.dims.Trace;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * Finds elements and extents that depend on the token ids and not only on their number, such as the number of tokens
 * routed to an expert. The traced value of such an extent does not hold for other rows.
 */
final class DataDependence {
    /** Operators whose results have the axes of their first operand. */
    private static final Set<String> KEEPS_AXES = Set.of(
            "CumSum",
            "GatherElements",
            "LayerNormalization",
            "LogSoftmax",
            "ScatterElements",
            "ScatterND",
            "Softmax",
            "Trilu");

    /** Operators that pass the elements of a short vector on in order. */
    private static final Set<String> KEEPS_ELEMENTS = Set.of("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze");

    private final Trace trace;
    private final Map<Value, Set<Integer>> axes = new HashMap<>();
    private final Map<Value, Set<Integer>> elements = new HashMap<>();

    DataDependence(Trace trace) {
        this.trace = trace;
    }

    /** The axes of a value whose extents depend on the token ids. */
    Set<Integer> axes(Value value) {
        resolve(value);
        return axes.get(value);
    }

    /**
     * The positions in a vector that depend on the token ids. For a value that is not a vector, the set is empty if
     * nothing depends on them.
     */
    Set<Integer> elements(Value value) {
        resolve(value);
        return elements.get(value);
    }

    /**
     * Uses an explicit stack instead of recursion, because a path through all layers is too long for the call stack.
     */
    private void resolve(Value value) {
        Deque<Value> pending = new ArrayDeque<>(List.of(value));
        while (!pending.isEmpty()) {
            Value current = pending.peek();
            Op producer = current.producer();
            if (axes.containsKey(current)) {
                pending.pop();
            } else if (current.constant() != null || producer == null) {
                axes.put(current, Set.of());
                elements.put(current, current.constant() != null ? Set.of() : every(current));
            } else {
                List<Value> missing = producer.inputs().stream()
                        .filter(input -> input != null && !axes.containsKey(input))
                        .toList();
                if (missing.isEmpty()) {
                    axes.put(current, trace.isKnown(current) ? axesOf(producer, rank(current)) : Set.of());
                    elements.put(current, elementsOf(producer, current));
                } else {
                    missing.forEach(pending::push);
                }
            }
        }
    }

    private Set<Integer> every(Value value) {
        return trace.isKnown(value) && rank(value) == 1 ? range(0, (int) trace.shape(value, 0)[0]) : Set.of(0);
    }

    private Set<Integer> elementsOf(Op op, Value result) {
        Value first = op.input(0);
        String operator = op.node().op();
        if (operator.equals("Shape")) {
            int start = Derivation.axis(op.node().intAttribute("start", 0), rank(first));
            Set<Integer> found = new HashSet<>();
            axes.get(first).forEach(axis -> found.add(axis - start));
            return found;
        }
        if (operator.equals("Size")) {
            return axes.get(first).isEmpty() ? Set.of() : every(result);
        }
        if (op.inputs().stream()
                .allMatch(input -> input == null
                        || elements.get(input).isEmpty() && axes.get(input).isEmpty())) {
            return Set.of();
        }
        if (KEEPS_ELEMENTS.contains(operator) && isVector(first) && isVector(result)) {
            return elements.get(first);
        }
        if (operator.equals("Gather") && isVector(first) && isVector(result)) {
            return picked(op, result);
        }
        if (operator.equals("Concat") && isVector(result)) {
            return joined(op);
        }
        if (Derivatives.isElementwise(operator) && isVector(result)) {
            return merged(op, result);
        }
        return operator.equals("ConstantOfShape") ? Set.of() : every(result);
    }

    private boolean isVector(Value value) {
        return trace.isKnown(value) && rank(value) <= 1;
    }

    private Set<Integer> picked(Op op, Value result) {
        if (op.input(1).constant() == null) {
            return every(result);
        }
        long[] indices = op.input(1).constant().toLongs();
        int length = (int) trace.shape(op.input(0), 0)[0];
        Set<Integer> found = new HashSet<>();
        for (int i = 0; i < indices.length; i++) {
            if (elements.get(op.input(0)).contains(Derivation.axis(indices[i], length))) {
                found.add(i);
            }
        }
        return found;
    }

    private Set<Integer> joined(Op op) {
        Set<Integer> found = new HashSet<>();
        int position = 0;
        for (Value piece : op.inputs()) {
            int start = position;
            elements.get(piece).forEach(i -> found.add(start + i));
            position += (int) trace.shape(piece, 0)[0];
        }
        return found;
    }

    /** Element-wise operators; a single element is combined with all others. */
    private Set<Integer> merged(Op op, Value result) {
        Set<Integer> found = new HashSet<>();
        int length = every(result).size();
        for (Value input : op.inputs()) {
            if (input != null && !elements.get(input).isEmpty()) {
                found.addAll(every(input).size() == length ? elements.get(input) : every(result));
            }
        }
        return found;
    }

    private Set<Integer> axesOf(Op op, int rank) {
        Value first = op.input(0);
        Value second = op.input(1);
        return switch (op.node().op()) {
            case "Shape", "Size" -> Set.of();
            case "NonZero" -> Set.of(1);
            case "Compress", "Unique" -> range(0, rank);
            case "ConstantOfShape" -> elements.get(first);
            case "Range" ->
                op.inputs().stream().allMatch(bound -> elements.get(bound).isEmpty()) ? Set.of() : Set.of(0);
            case "Reshape" -> reshaped(op, rank);
            case "Expand", "Tile" -> {
                Set<Integer> found = aligned(first, rank);
                int shift = rank - every(second).size();
                elements.get(second).forEach(i -> found.add(i + shift));
                yield found;
            }
            case "Slice" -> sliced(op, rank);
            case "Split", "TopK" -> {
                Set<Integer> found = new HashSet<>(axes.get(first));
                if (second != null && !elements.get(second).isEmpty()) {
                    found.add(Derivation.axis(
                            op.node().intAttribute("axis", op.node().is("TopK") ? -1 : 0), rank));
                }
                yield found;
            }
            case "Pad", "OneHot" -> varies(op) || !elements.get(second).isEmpty() ? range(0, rank) : Set.of();
            default -> varies(op) ? moved(op, rank) : Set.of();
        };
    }

    /** Whether an extent of any operand depends on the token ids. */
    private boolean varies(Op op) {
        return op.inputs().stream()
                .anyMatch(input -> input != null && !axes.get(input).isEmpty());
    }

    private Set<Integer> reshaped(Op op, int rank) {
        Set<Integer> found = new HashSet<>(elements.get(op.input(1)));
        boolean others = !axes.get(op.input(0)).isEmpty() || !found.isEmpty();
        long[] listed = trace.contents(op.input(1), 0);
        for (int axis = 0; axis < rank && others; axis++) {
            boolean copied = listed != null && listed[axis] == 0 && op.node().intAttribute("allowzero", 0) == 0;
            if (listed == null
                    || listed[axis] < 0
                    || copied && axes.get(op.input(0)).contains(axis)) {
                found.add(axis);
            }
        }
        return found;
    }

    private Set<Integer> sliced(Op op, int rank) {
        Set<Integer> found = new HashSet<>(axes.get(op.input(0)));
        Set<Integer> bounds = new HashSet<>(elements.get(op.input(1)));
        bounds.addAll(elements.get(op.input(2)));
        Value listed = op.input(3);
        long[] at = listed == null || listed.constant() == null
                ? null
                : listed.constant().toLongs();
        for (int bound : bounds) {
            if (listed != null && at == null) {
                return range(0, rank);
            }
            found.add(at == null ? bound : Derivation.axis(at[bound], rank));
        }
        return found;
    }

    /** The dependent axes of the result of an operator that moves or combines axes. */
    private Set<Integer> moved(Op op, int rank) {
        String operator = op.node().op();
        Value first = op.input(0);
        if (KEEPS_AXES.contains(operator)
                || operator.startsWith("Reduce") && op.node().intAttribute("keepdims", 1) == 1) {
            return axes.get(first);
        }
        return switch (operator) {
            case "Transpose" -> {
                List<Long> permutation = LayoutDerivatives.permutation(op.node(), rank);
                Set<Integer> found = range(0, rank);
                found.removeIf(
                        axis -> !axes.get(first).contains(permutation.get(axis).intValue()));
                yield found;
            }
            case "Unsqueeze", "Squeeze" -> shifted(op, rank);
            case "Gather" -> gathered(op);
            case "GatherND" -> gatheredByRow(op, rank);
            case "MatMul" -> multiplied(op, rank);
            case "Gemm" -> {
                Set<Integer> found = new HashSet<>();
                if (axes.get(first).contains((int) op.node().intAttribute("transA", 0))) {
                    found.add(0);
                }
                if (axes.get(op.input(1)).contains(1 - (int) op.node().intAttribute("transB", 0))) {
                    found.add(1);
                }
                yield found;
            }
            default ->
                Derivatives.isElementwise(operator) || operator.equals("Concat") ? combined(op, rank) : range(0, rank);
        };
    }

    private Set<Integer> combined(Op op, int rank) {
        Set<Integer> found = new HashSet<>();
        for (Value input : op.inputs()) {
            if (input != null) {
                found.addAll(aligned(input, rank));
            }
        }
        return found;
    }

    private Set<Integer> multiplied(Op op, int rank) {
        if (rank(op.input(0)) < 2 || rank(op.input(1)) < 2) {
            return range(0, rank);
        }
        Set<Integer> found = aligned(op.input(0), rank);
        found.remove(rank - 1);
        Set<Integer> right = aligned(op.input(1), rank);
        right.remove(rank - 2);
        found.addAll(right);
        return found;
    }

    private Set<Integer> gathered(Op op) {
        int axis = Derivation.axis(op.node().intAttribute("axis", 0), rank(op.input(0)));
        int indexRank = rank(op.input(1));
        Set<Integer> found = new HashSet<>();
        axes.get(op.input(0)).stream().filter(i -> i != axis).forEach(i -> found.add(i < axis ? i : i + indexRank - 1));
        axes.get(op.input(1)).forEach(i -> found.add(axis + i));
        return found;
    }

    /** GatherND: the index axes except the last, followed by the operand's axes that are not indexed. */
    private Set<Integer> gatheredByRow(Op op, int rank) {
        int indexRank = rank(op.input(1));
        Set<Integer> found = new HashSet<>(axes.get(op.input(1)));
        found.remove(indexRank - 1);
        aligned(op.input(0), rank).stream()
                .filter(axis -> axis >= indexRank - 1)
                .forEach(found::add);
        return found;
    }

    /** The dependent axes after axes were inserted or removed at constant positions. */
    private Set<Integer> shifted(Op op, int rank) {
        Value operand = op.input(1);
        if (operand == null || operand.constant() == null) {
            return range(0, rank);
        }
        boolean inserts = op.node().is("Unsqueeze");
        int largerRank = inserts ? rank : rank(op.input(0));
        Set<Integer> kept = range(0, largerRank);
        for (long axis : operand.constant().toLongs()) {
            kept.remove(Derivation.axis(axis, largerRank));
        }
        Set<Integer> found = new HashSet<>();
        int smallerAxis = 0;
        for (int axis : kept.stream().sorted().toList()) {
            if (axes.get(op.input(0)).contains(inserts ? smallerAxis : axis)) {
                found.add(inserts ? axis : smallerAxis);
            }
            smallerAxis++;
        }
        return found;
    }

    /** The dependent axes of an operand, aligned at the end with a result of the given rank. */
    private Set<Integer> aligned(Value operand, int rank) {
        int shift = trace.isKnown(operand) ? rank - rank(operand) : 0;
        Set<Integer> found = new HashSet<>();
        axes.get(operand).forEach(axis -> found.add(axis + shift));
        return found;
    }

    private int rank(Value value) {
        return trace.shape(value, 0).length;
    }

    private static Set<Integer> range(int start, int end) {
        Set<Integer> range = new HashSet<>();
        for (int i = start; i < end; i++) {
            range.add(i);
        }
        return range;
    }
}
