// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Trace;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.GraphBuilder;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Supplier;
import java.util.stream.LongStream;

/**
 * One operator application that a decomposition replaces: its operands, their known shapes, and the nodes that replace
 * it. A decomposition appends nodes and then calls {@link #result} for each result.
 */
final class RewriteContext {
    private final Op op;
    private final Node node;
    private final Trace trace;
    private final GraphBuilder graph;
    private final Map<String, String> shared;
    private final Map<String, String> renamed = new HashMap<>();
    private final Set<Integer> wanted;
    private final int length;
    private final int start;

    /**
     * Creates a context that appends to {@code graph}.
     *
     * @param wanted positions of the results that are used
     * @param shared names of values by key, shared by all operators of a model
     * @param length number of tokens of a row
     */
    RewriteContext(
            Op op, Set<Integer> wanted, Trace trace, GraphBuilder graph, Map<String, String> shared, int length) {
        this.op = op;
        this.node = op.node();
        this.wanted = wanted;
        this.trace = trace;
        this.graph = graph;
        this.shared = shared;
        this.length = length;
        this.start = graph.nodes().size();
    }

    Node node() {
        return node;
    }

    /** The operator application in the traced program. */
    Op op() {
        return op;
    }

    /** The number of tokens of a row that the lowered model is run on. */
    int length() {
        return length;
    }

    /** Whether operand {@code position} is given. */
    boolean has(int position) {
        return !in(position).isEmpty();
    }

    /** The name of operand {@code position}; empty when it is omitted. */
    String in(int position) {
        return node.input(position);
    }

    /** The value of operand {@code position} in the traced program; null when it is omitted. */
    Value operand(int position) {
        return op.input(position);
    }

    /** Whether result {@code position} is used. */
    boolean wants(int position) {
        return wanted.contains(position);
    }

    /**
     * Number of axes of operand {@code position}.
     *
     * @throws UserException when its shape was not traced
     */
    int rank(int position) {
        return shape(position, 0).length;
    }

    /**
     * The extent of an axis of an operand, which must be equal in all runs.
     *
     * @param axis index of the axis; negative values count from the last
     * @throws UserException when the extent varies or was not traced
     */
    long extent(int position, int axis) {
        long[] shape = shape(position, 0);
        int index = axis < 0 ? axis + shape.length : axis;
        if (shape[index] != shape(position, 1)[index]) {
            throw new UserException(
                    "node %s has an input \"%s\" whose axis %d has no fixed size; it cannot be calibrated"
                            .formatted(node.label(), in(position), index));
        }
        return shape[index];
    }

    /**
     * The shape of an operand in one traced run (0 or 1).
     *
     * @throws UserException when it was not traced
     */
    long[] shape(int position, int run) {
        long[] shape = op.input(position) == null ? null : shape(op.input(position), run);
        if (shape == null) {
            throw new UserException("node %s has an input \"%s\" whose shape is not known; it cannot be calibrated"
                    .formatted(node.label(), in(position)));
        }
        return shape;
    }

    /** The shape of any value in one traced run (0 or 1); null when it was not traced. */
    long[] shape(Value value, int run) {
        return trace.shape(value, run);
    }

    /** The element type of an operand, with half precision widened; UNDEFINED when unknown. */
    DType dtype(int position) {
        return op.input(position) == null ? DType.UNDEFINED : trace.dtype(op.input(position));
    }

    GraphBuilder graph() {
        return graph;
    }

    /** A value that all operators of a model with the same key share. It is created on first use. */
    String shared(String key, Supplier<String> value) {
        String known = shared.get(key);
        if (known == null) {
            known = value.get();
            shared.put(key, known);
        }
        return known;
    }

    // ------------------------------------------------------------------------------------------------ new nodes

    String add(String operator, String... inputs) {
        return graph.add(operator, inputs);
    }

    String add(String operator, List<String> inputs, Map<String, Attribute> attributes) {
        return graph.add(operator, inputs, attributes);
    }

    String scalar(double value) {
        return graph.scalar((float) value);
    }

    /** {@code x · factor}; {@code x} itself when the factor is 1. */
    String scaled(String x, double factor) {
        return factor == 1 ? x : add("Mul", x, scalar(factor));
    }

    /** {@code x} reshaped; 0 copies the extent at its place, -1 is inferred. */
    String reshape(String x, long... shape) {
        return add("Reshape", x, graph.ints(shape));
    }

    String transpose(String x, long... permutation) {
        return add("Transpose", List.of(x), Map.of("perm", ints(permutation)));
    }

    String unsqueeze(String x, long... axes) {
        return add("Unsqueeze", x, graph.ints(axes));
    }

    /** Splits {@code x} into parts of the given sizes along {@code axis}. */
    List<String> split(String x, long axis, long... sizes) {
        return graph.add("Split", List.of(x, graph.ints(sizes)), Map.of("axis", new Attribute.Int(axis)), sizes.length);
    }

    String concat(long axis, String... parts) {
        return add("Concat", List.of(parts), Map.of("axis", new Attribute.Int(axis)));
    }

    String cast(String x, DType dtype) {
        return add("Cast", List.of(x), Map.of("to", new Attribute.Int(dtype.code())));
    }

    /** {@code data} at {@code indices} along {@code axis}. */
    String gather(String data, String indices, long axis) {
        return add("Gather", List.of(data, indices), Map.of("axis", new Attribute.Int(axis)));
    }

    /** The elements {@code from} to {@code to} of one axis. */
    String slice(String x, long axis, long from, long to) {
        return add("Slice", x, graph.ints(from), graph.ints(to), graph.ints(axis));
    }

    /** Reduces {@code x} over {@code axes} and keeps them with extent 1. */
    String reduce(String operator, String x, long... axes) {
        return add(operator, x, graph.ints(axes));
    }

    /** {@code x + y}; {@code x} when {@code y} is omitted. */
    String plus(String x, String y) {
        return y.isEmpty() ? x : add("Add", x, y);
    }

    static Attribute.Ints ints(long... values) {
        return new Attribute.Ints(Arrays.stream(values).boxed().toList());
    }

    /** The axes from {@code from} to {@code to}, exclusive. */
    static long[] axes(int from, int to) {
        return LongStream.range(from, to).toArray();
    }

    /** Adds an initializer and returns its name. */
    String constant(Tensor tensor) {
        return graph.constant(tensor);
    }

    // ---------------------------------------------------------------------------------------------- the results

    /** Sets result {@code position} of the replaced operator to {@code value}, which is renamed or copied to it. */
    void result(int position, String value) {
        String result = node.output(position);
        if (!wants(position)) {
            return;
        }
        List<Node> nodes = graph.nodes();
        String current = renamed.getOrDefault(value, value);
        if (!shared.containsValue(current) && !renamed.containsKey(value)) {
            for (int i = start; i < nodes.size(); i++) {
                if (nodes.get(i).outputs().contains(current)) {
                    renamed.put(current, result);
                    rename(nodes, current, result);
                    return;
                }
            }
        }
        graph.add(Node.of(result, "Identity", List.of(current), List.of(result), Map.of()));
    }

    private void rename(List<Node> nodes, String from, String to) {
        for (int i = start; i < nodes.size(); i++) {
            nodes.set(i, Renaming.all(nodes.get(i), Map.of(from, to)));
        }
    }
}
