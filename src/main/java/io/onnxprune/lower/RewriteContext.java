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
 * One application that a decomposition replaces: its operands by position, what is known about their shapes, and the
 * nodes that take its place. A decomposition appends nodes and then says with {@link #result} which value each result is.
 */
final class RewriteContext {
    private final Op op;
    private final Node node;
    private final Trace trace;
    private final GraphBuilder graph;
    private final Map<String, String> shared;
    private final Map<String, String> renamed = new HashMap<>();
    private final Set<Integer> wanted;
    private final int start;

    /**
     * A site at the end of {@code graph}.
     *
     * @param wanted which results somebody reads
     * @param shared values by key that all sites of a model share
     */
    RewriteContext(Op op, Set<Integer> wanted, Trace trace, GraphBuilder graph, Map<String, String> shared) {
        this.op = op;
        this.node = op.node();
        this.wanted = wanted;
        this.trace = trace;
        this.graph = graph;
        this.shared = shared;
        this.start = graph.nodes().size();
    }

    Node node() {
        return node;
    }

    /** The application in the traced program. */
    Op op() {
        return op;
    }

    /** Whether operand {@code position} is given. */
    boolean has(int position) {
        return !in(position).isEmpty();
    }

    /** The name of operand {@code position}, empty where it is omitted. */
    String in(int position) {
        return node.input(position);
    }

    /** The value that operand {@code position} is in the traced program, null where it is omitted. */
    Value operand(int position) {
        return op.input(position);
    }

    /** Whether somebody reads result {@code position}. */
    boolean wants(int position) {
        return wanted.contains(position);
    }

    /**
     * How many axes operand {@code position} has.
     *
     * @throws UserException if the trace did not reach it
     */
    int rank(int position) {
        return shape(position, 0).length;
    }

    /**
     * The extent of an axis of an operand that is the same in all runs.
     *
     * @param axis may be negative, counting from the last
     * @throws UserException if it differs from run to run
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

    /** The shape of an operand in one of the two runs of the trace. */
    long[] shape(int position, int run) {
        Value value = op.input(position);
        long[] shape = value == null ? null : trace.shape(value, run);
        if (shape == null) {
            throw new UserException("node %s has an input \"%s\" whose shape is not known; it cannot be calibrated"
                    .formatted(node.label(), in(position)));
        }
        return shape;
    }

    /** The element type of an operand, half types widened; UNDEFINED if unknown. */
    DType dtype(int position) {
        return op.input(position) == null ? DType.UNDEFINED : trace.dtype(op.input(position));
    }

    GraphBuilder graph() {
        return graph;
    }

    /** A value that every site which asks for the same key shares. */
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

    /** {@code x · factor}; {@code x} itself for 1. */
    String scaled(String x, double factor) {
        return factor == 1 ? x : add("Mul", x, scalar(factor));
    }

    /** {@code x} under another shape; 0 keeps the extent at its place, -1 takes the rest. */
    String reshape(String x, long... shape) {
        return add("Reshape", x, graph.ints(shape));
    }

    String transpose(String x, long... permutation) {
        return add("Transpose", List.of(x), Map.of("perm", ints(permutation)));
    }

    String unsqueeze(String x, long... axes) {
        return add("Unsqueeze", x, graph.ints(axes));
    }

    /** Parts of {@code x} of the given sizes along {@code axis}. */
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

    /** {@code x + y}; {@code x} where {@code y} is omitted. */
    String plus(String x, String y) {
        return y.isEmpty() ? x : add("Add", x, y);
    }

    static Attribute.Ints ints(long... values) {
        return new Attribute.Ints(Arrays.stream(values).boxed().toList());
    }

    /** {@code 0, 1, .. n-1} for a rank. */
    static long[] axes(int from, int to) {
        return LongStream.range(from, to).toArray();
    }

    /** A new initializer. */
    String constant(Tensor tensor) {
        return graph.constant(tensor);
    }

    // ---------------------------------------------------------------------------------------------- the results

    /** Says that result {@code position} of the replaced application is {@code value}, which then has its name. */
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
