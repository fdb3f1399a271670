// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import io.onnxprune.dims.Trace;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Bytes;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.GraphBuilder;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * The nodes that are appended, and what is known about the values that they use. Equal small helpers (shapes, scalars,
 * casts of one weight) are created once.
 *
 * <p>An extent is static when it is equal in both traced runs and does not depend on the token ids.
 */
final class BackwardGraph {
    private final GraphBuilder builder;
    private final Trace trace;
    private final Map<Object, String> shared = new HashMap<>();
    private final DataDependence dependence;

    BackwardGraph(GraphBuilder builder, Trace trace) {
        this.builder = builder;
        this.trace = trace;
        this.dependence = new DataDependence(trace);
    }

    /** An attribute map with one integer. */
    static Map<String, Attribute> integer(String key, long value) {
        return Map.of(key, new Attribute.Int(value));
    }

    /** An attribute map with one list of integers. */
    static Map<String, Attribute> integers(String key, List<Long> values) {
        return Map.of(key, new Attribute.Ints(values));
    }

    String add(String op, String... inputs) {
        return builder.add(op, inputs);
    }

    String add(String op, Map<String, Attribute> attributes, String... inputs) {
        return builder.add(op, List.of(inputs), attributes);
    }

    List<String> add(String op, Map<String, Attribute> attributes, List<String> inputs, int results) {
        return builder.add(op, inputs, attributes, results);
    }

    /** The name of an int64 vector. */
    String ints(long... values) {
        return builder.ints(values);
    }

    /** The name of an int64 vector. */
    String ints(List<Long> values) {
        return builder.ints(values.stream().mapToLong(Long::longValue).toArray());
    }

    /** The name of an int64 scalar. */
    String index(long value) {
        return builder.index(value);
    }

    /** The name of a floating-point scalar with the type of the gradient of {@code like}. */
    String scalar(Value like, double value) {
        return scalar(precision(like), value);
    }

    private String scalar(DType dtype, double value) {
        if (dtype != DType.DOUBLE) {
            return builder.scalar((float) value);
        }
        return shared.computeIfAbsent(
                List.of("scalar", value),
                key -> builder.constant(Tensor.of(dtype, new long[0], Bytes.of(doubles(value)))));
    }

    private static ByteBuffer doubles(double value) {
        return ByteBuffer.allocate(8)
                .order(ByteOrder.LITTLE_ENDIAN)
                .putDouble(value)
                .flip();
    }

    /**
     * A tensor filled with {@code value}, with the type of the gradient of {@code like}.
     *
     * @param shape name of an int64 vector
     */
    String filled(Value like, String shape, double value) {
        DType dtype = precision(like);
        Tensor tensor = dtype == DType.DOUBLE
                ? Tensor.of(dtype, new long[] {1}, Bytes.of(doubles(value)))
                : Tensor.ofFloats(dtype, new long[] {1}, (float) value);
        return add("ConstantOfShape", Map.of("value", new Attribute.Constant(tensor)), shape);
    }

    /** The element type of a value's gradient: float64 for float64 values, float32 for all others. */
    DType precision(Value value) {
        return trace.dtype(value) == DType.DOUBLE ? DType.DOUBLE : DType.FLOAT;
    }

    /** Whether a value can have a gradient: floating-point values and those of unknown type. */
    boolean isDifferentiable(Value value) {
        DType dtype = trace.dtype(value);
        return dtype.isFloat() || dtype == DType.UNDEFINED;
    }

    /** The name of a value for arithmetic with gradients; half-precision weights are cast. */
    String operand(Value value) {
        DType dtype = trace.dtype(value);
        boolean half = value.constant() != null && (dtype == DType.FLOAT16 || dtype == DType.BFLOAT16);
        return half ? shared.computeIfAbsent(value, key -> cast(value.name(), DType.FLOAT)) : value.name();
    }

    String cast(String name, DType dtype) {
        return add("Cast", integer("to", dtype.code()), name);
    }

    /** The run-time shape of a value, as an int64 vector. */
    String shape(Value value) {
        return shared.computeIfAbsent(List.of("shape", value), key -> add("Shape", value.name()));
    }

    /** The run-time extent of one axis, as an int64 vector of one element. */
    String extentAtRun(Value value, int axis) {
        long extent = extent(value, axis);
        if (extent >= 0) {
            return ints(extent);
        }
        return shared.computeIfAbsent(
                List.of("extent", value, axis), key -> add("Shape", range(axis, axis + 1), value.name()));
    }

    /** The attributes of a Shape node for the extents of axes {@code start} to {@code end}. */
    static Map<String, Attribute> range(long start, long end) {
        return Map.of("start", new Attribute.Int(start), "end", new Attribute.Int(end));
    }

    /** Merges all axes except the last into one, without a copy. */
    String flattened(String name, int rank) {
        return add("Flatten", integer("axis", rank - 1), name);
    }

    /** Reshapes to {@code shape}, in which 0 means an extent of 0. */
    String reshaped(String name, String shape) {
        return add("Reshape", integer("allowzero", 1), name, shape);
    }

    /** Reshapes a tensor to the shape of {@code value}. */
    String reshapedTo(String name, Value value) {
        long[] extents = extents(value);
        return reshaped(name, extents == null ? shape(value) : ints(extents));
    }

    int rank(Value value) {
        return trace.shape(value, 0).length;
    }

    /** The extent of an axis when it is static, else -1. */
    long extent(Value value, int axis) {
        long extent = trace.shape(value, 0)[axis];
        boolean same = extent == trace.shape(value, 1)[axis];
        return same && !dependence.axes(value).contains(axis) ? extent : -1;
    }

    boolean isOne(Value value, int axis) {
        return extent(value, axis) == 1;
    }

    /** All extents when they are static, else null. */
    long[] extents(Value value) {
        long[] shape = trace.shape(value, 0);
        boolean same = Arrays.equals(shape, trace.shape(value, 1));
        return same && dependence.axes(value).isEmpty() ? shape : null;
    }

    boolean hasShape(Value value) {
        return trace.isKnown(value);
    }

    /** The elements of a small integer value when they do not depend on token ids, batch and length; else null. */
    long[] integers(Value value) {
        long[] contents = trace.contents(value, 0);
        boolean fixed = contents != null
                && Arrays.equals(contents, trace.contents(value, 1))
                && dependence.elements(value).isEmpty();
        return fixed ? contents : null;
    }

    /**
     * The axes of {@code result} on which {@code operand}, aligned with it at the end, is broadcast or has extent 1.
     */
    Set<Integer> broadcastAxes(Value operand, Value result) {
        int shift = rank(result) - rank(operand);
        Set<Integer> axes = new HashSet<>();
        for (int axis = 0; axis < rank(result); axis++) {
            if (axis < shift || isOne(operand, axis - shift)) {
                axes.add(axis);
            }
        }
        return axes;
    }

    /** The gradient expanded to the shape of {@code value}. */
    String full(Gradient gradient, Value value) {
        return gradient.isFull() ? gradient.name() : add("Expand", gradient.name(), shape(value));
    }

    /** Sums a gradient of {@code result}'s shape over the axes on which {@code operand} was broadcast to it. */
    Gradient sumToShape(Gradient gradient, Value result, Value operand) {
        int shift = rank(result) - rank(operand);
        List<Long> absent = new ArrayList<>();
        List<Long> ones = new ArrayList<>();
        for (int axis = 0; axis < rank(result); axis++) {
            // The extents of weights are certain. An axis of the result that was traced as 1 may be longer at run time.
            boolean known = axis >= shift && operand.constant() != null;
            if (axis < shift) {
                absent.add((long) axis);
            } else if (isOne(operand, axis - shift) && (known || !isOne(result, axis))) {
                ones.add((long) axis);
            }
        }
        Gradient source = gradient;
        List<Long> summed = new ArrayList<>(absent);
        summed.addAll(ones);
        if (summed.stream().anyMatch(axis -> gradient.stretched().contains(axis.intValue()))) {
            source = Gradient.full(full(gradient, result));
        }
        String name = source.name();
        if (!summed.isEmpty()) {
            name = add("ReduceSum", integer("keepdims", absent.isEmpty() ? 1 : 0), name, ints(summed));
        }
        if (!absent.isEmpty() && !ones.isEmpty()) {
            name = add(
                    "Unsqueeze",
                    name,
                    ints(ones.stream().mapToLong(axis -> axis - shift).toArray()));
        }
        Set<Integer> stretched = new HashSet<>();
        source.stretched().forEach(axis -> stretched.add(axis - shift));
        return new Gradient(name, stretched);
    }
}
