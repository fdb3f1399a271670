// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Function;
import java.util.function.LongBinaryOperator;

/**
 * Symbolic evaluation of small integer tensors that feed Reshape, Expand, Slice and similar operators. Each element of
 * a vector is evaluated separately. The rewriter then knows which elements adapt to pruning by themselves (they come
 * from Shape) and which are numbers that must be patched.
 */
final class Elements {
    private static final Map<String, LongBinaryOperator> OPERATORS = Map.ofEntries(
            Map.entry("Add", Long::sum),
            Map.entry("Sub", (a, b) -> a - b),
            Map.entry("Mul", (a, b) -> a * b),
            Map.entry("Div", (a, b) -> b == 0 ? 0 : a / b),
            Map.entry("Mod", (a, b) -> b == 0 ? 0 : Math.floorMod(a, b)),
            Map.entry("Min", Math::min),
            Map.entry("Max", Math::max),
            Map.entry("Equal", (a, b) -> a == b ? 1 : 0),
            Map.entry("Less", (a, b) -> a < b ? 1 : 0),
            Map.entry("Greater", (a, b) -> a > b ? 1 : 0),
            Map.entry("LessOrEqual", (a, b) -> a <= b ? 1 : 0),
            Map.entry("GreaterOrEqual", (a, b) -> a >= b ? 1 : 0),
            Map.entry("And", (a, b) -> a & b),
            Map.entry("Or", (a, b) -> a | b));

    private final Trace trace;
    private final Function<Value, Dim[]> dims;
    private final Map<Value, Element[]> known = new HashMap<>();

    Elements(Trace trace, Function<Value, Dim[]> dims) {
        this.trace = trace;
        this.dims = dims;
    }

    /** The elements of a small integer or boolean value; null for any other value. */
    Element[] of(Value value) {
        if (value == null) {
            return null;
        }
        Element[] elements = known.get(value);
        return elements != null ? elements : fromTrace(value, value.constant() != null);
    }

    private Element[] fromTrace(Value value, boolean constant) {
        long[] first = trace.contents(value, 0);
        long[] second = trace.contents(value, 1);
        if (first == null || second == null || first.length != second.length) {
            return null;
        }
        Element[] elements = new Element[first.length];
        for (int i = 0; i < first.length; i++) {
            elements[i] = constant ? new Element.Literal(first[i]) : new Element.Traced(first[i], second[i]);
        }
        return elements;
    }

    /** Evaluates {@code op} if its output is a small integer tensor. Its inputs must have been evaluated. */
    void evaluate(Op op) {
        Value output = op.output(0);
        if (output == null || output.constant() != null || op.outputs().size() != 1) {
            return;
        }
        Element[] traced = fromTrace(output, false);
        if (traced == null) {
            return;
        }
        Element[] result = result(op, traced.length);
        // A term that does not reproduce both runs is replaced by the traced values.
        boolean valid = result != null && result.length == traced.length;
        for (int run = 0; valid && run < 2; run++) {
            for (int i = 0; i < traced.length; i++) {
                valid &= result[i].value(run, Dim.Keep.ALL) == traced[i].value(run, Dim.Keep.ALL);
            }
        }
        known.put(output, valid ? result : traced);
    }

    private Element[] result(Op op, int count) {
        Node node = op.node();
        LongBinaryOperator operator = OPERATORS.get(node.op());
        if (operator != null && op.inputs().size() == 2) {
            Element[] left = of(op.input(0));
            Element[] right = of(op.input(1));
            return left == null || right == null
                    ? null
                    : zip(count, left, right, (a, b) -> new Element.Combined(operator, a, b));
        }
        return switch (node.op()) {
            case "Shape" -> shape(op);
            case "Size" -> new Element[] {new Element.SizeOf(Dim.product(Arrays.asList(dims.apply(op.input(0)))))};
            case "Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape", "Flatten" -> of(op.input(0));
            case "Expand", "ConstantOfShape" -> null;
            case "Concat" -> concat(op);
            case "Gather" -> gather(op);
            case "Slice" -> slice(op);
            case "Where" -> where(op, count);
            case "ReduceProd" -> product(of(op.input(0)), count);
            default -> null;
        };
    }

    private static Element[] zip(
            int count, Element[] left, Element[] right, java.util.function.BinaryOperator<Element> combine) {
        if (left.length != count && left.length != 1 || right.length != count && right.length != 1) {
            return null;
        }
        Element[] result = new Element[count];
        for (int i = 0; i < count; i++) {
            result[i] = combine.apply(left[left.length == 1 ? 0 : i], right[right.length == 1 ? 0 : i]);
        }
        return result;
    }

    private Element[] shape(Op op) {
        Dim[] axes = dims.apply(op.input(0));
        if (axes == null) {
            return null;
        }
        int start = clamp(op.node().intAttribute("start", 0), axes.length);
        int end = clamp(op.node().intAttribute("end", axes.length), axes.length);
        return Arrays.stream(axes, start, Math.max(start, end))
                .map(Element.SizeOf::new)
                .toArray(Element[]::new);
    }

    private static int clamp(long index, int length) {
        return (int) Math.max(0, Math.min(length, index < 0 ? index + length : index));
    }

    private Element[] concat(Op op) {
        List<Element> all = new ArrayList<>();
        for (Value input : op.inputs()) {
            Element[] part = of(input);
            if (part == null) {
                return null;
            }
            all.addAll(Arrays.asList(part));
        }
        return all.toArray(new Element[0]);
    }

    private Element[] gather(Op op) {
        Element[] data = of(op.input(0));
        long[] indices = trace.contents(op.input(1), 0);
        if (data == null || indices == null || !Arrays.equals(indices, trace.contents(op.input(1), 1))) {
            return null;
        }
        long[] shape = trace.shape(op.input(0), 0);
        if (shape == null || shape.length != 1) {
            return null;
        }
        return Arrays.stream(indices)
                .mapToObj(index -> data[(int) (index < 0 ? index + data.length : index)])
                .toArray(Element[]::new);
    }

    private Element[] slice(Op op) {
        Element[] data = of(op.input(0));
        long[] starts = trace.contents(op.input(1), 0);
        long[] ends = trace.contents(op.input(2), 0);
        if (data == null || starts == null || ends == null || starts.length != 1 || ends.length != 1) {
            return null;
        }
        Value steps = op.input(4);
        if (steps != null && (trace.contents(steps, 0) == null || trace.contents(steps, 0)[0] != 1)) {
            return null;
        }
        int from = clamp(starts[0], data.length);
        int to = clamp(ends[0], data.length);
        return Arrays.copyOfRange(data, from, Math.max(from, to));
    }

    private Element[] where(Op op, int count) {
        Element[] condition = of(op.input(0));
        Element[] yes = of(op.input(1));
        Element[] no = of(op.input(2));
        if (condition == null || yes == null || no == null || condition.length != count && condition.length != 1) {
            return null;
        }
        Element[] result = new Element[count];
        for (int i = 0; i < count; i++) {
            result[i] = new Element.Choice(
                    condition[condition.length == 1 ? 0 : i], yes[yes.length == 1 ? 0 : i], no[no.length == 1 ? 0 : i]);
        }
        return result;
    }

    private static Element[] product(Element[] factors, int count) {
        if (factors == null || count != 1) {
            return null;
        }
        Element result = new Element.Literal(1);
        for (Element factor : factors) {
            result = new Element.Combined((a, b) -> a * b, result, factor);
        }
        return new Element[] {result};
    }
}
