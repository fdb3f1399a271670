// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.diag.Log;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.GraphBuilder;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.runtime.OnnxRuntime;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Deque;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;

/**
 * Replaces sequences of tensors whose elements are known by the tensors themselves, so that the rules of tensor
 * operators apply:
 * <ul>
 * <li>SplitToSequence becomes Split, if the extents of the parts are the same in both traced runs; without the split
 *     axis (keepdims of 0), one Gather for each element
 * <li>SequenceAt becomes a copy of its element, SequenceLength a constant, and ConcatFromSequence a Concat
 * <li>SequenceConstruct, SequenceEmpty, SequenceInsert and SequenceErase disappear
 * </ul>
 *
 * <p>A sequence of unknown length, an index that varies and a sequence that another operator reads are kept as they
 * are. The model computes the same as before. Source: the ONNX specification of these operators, since opset 11.
 */
public final class TensorSequences {
    private static final String PREFIX = "onnx_prune_element_";

    private final Program program;
    private final Trace trace;
    private final GraphBuilder builder;
    private final Map<Value, List<String>> elements = new HashMap<>();
    private final Map<Node, List<Node>> replacements = new HashMap<>();

    private TensorSequences(Program program, Trace trace) {
        this.program = program;
        this.trace = trace;
        Set<String> taken = GraphBuilder.names(program.model().graph());
        program.ops().forEach(op -> taken.addAll(op.node().outputs()));
        this.builder = new GraphBuilder(PREFIX, taken);
    }

    /**
     * The model without the sequences that can be replaced; {@code model} itself when it has none.
     *
     * @throws io.onnxprune.diag.UserException when ONNX Runtime cannot run the model
     */
    public static Model replace(Model model, OnnxRuntime runtime, Log log) {
        Program program = Program.of(model);
        boolean any = program.ops().stream().anyMatch(op -> isSequenceOperator(op.node()));
        return any ? new TensorSequences(program, Trace.of(program, runtime, log)).replaced() : model;
    }

    private static boolean isSequenceOperator(Node node) {
        return node.domain().isEmpty() && (node.op().contains("Sequence") && !node.is("ReverseSequence"));
    }

    private Model replaced() {
        program.ops().forEach(this::follow);
        Set<String> dropped = dropUnread();
        if (replacements.isEmpty()) {
            return program.model();
        }
        Graph graph = rebuilt(program.model().graph(), dropped);
        Set<String> read = graph.reads();
        Map<String, Tensor> initializers = new LinkedHashMap<>(graph.initializers());
        builder.initializers().forEach((name, tensor) -> {
            if (read.contains(name)) {
                initializers.put(name, tensor);
            }
        });
        return program.model().withGraph(graph.withInitializers(initializers));
    }

    private void follow(Op op) {
        Node node = op.node();
        if (!node.domain().isEmpty()) {
            return;
        }
        int before = builder.nodes().size();
        boolean known = switch (node.op()) {
            case "SplitToSequence" -> split(op);
            case "SequenceConstruct" -> define(op, names(op, 0));
            case "SequenceEmpty" -> define(op, new ArrayList<>());
            case "SequenceInsert" -> insert(op);
            case "SequenceErase" -> erase(op);
            case "Identity" -> elements.containsKey(op.input(0)) && define(op, elements.get(op.input(0)));
            case "SequenceAt" -> at(op);
            case "SequenceLength" -> length(op);
            case "ConcatFromSequence" -> concat(op);
            default -> false;
        };
        List<Node> added = builder.nodes().subList(before, builder.nodes().size());
        if (known) {
            replacements.put(node, List.copyOf(added));
        }
    }

    private static List<String> names(Op op, int from) {
        return op.inputs().stream().skip(from).map(Value::name).toList();
    }

    private boolean define(Op op, List<String> parts) {
        elements.put(op.output(0), List.copyOf(parts));
        return true;
    }

    private boolean split(Op op) {
        Value input = op.input(0);
        if (!trace.isKnown(input)) {
            return false;
        }
        int axis = RuleContext.axis(op.node().intAttribute("axis", 0), trace.shape(input, 0).length);
        long extent = trace.shape(input, 0)[axis];
        long[] parts = extent == trace.shape(input, 1)[axis] ? extents(op, extent) : null;
        if (parts == null || parts.length == 0) {
            return false;
        }
        List<String> results = new ArrayList<>();
        if (op.input(1) == null && op.node().intAttribute("keepdims", 1) == 0) {
            for (int i = 0; i < parts.length; i++) {
                results.add(
                        builder.add("Gather", List.of(input.name(), builder.index(i)), Map.of("axis", integer(axis))));
            }
        } else if (parts.length == 1) {
            results.add(builder.add("Identity", input.name()));
        } else {
            results.addAll(split(input, axis, parts));
        }
        return define(op, results);
    }

    private List<String> split(Value input, int axis, long[] parts) {
        Map<String, Attribute> attributes = new LinkedHashMap<>(Map.of("axis", integer(axis)));
        List<String> inputs = new ArrayList<>(List.of(input.name()));
        if (hasAxesAsInputs()) {
            inputs.add(builder.ints(parts));
        } else {
            attributes.put(
                    "split", new Attribute.Ints(Arrays.stream(parts).boxed().toList()));
        }
        return builder.add("Split", inputs, attributes, parts.length);
    }

    /** The extents of the parts of an axis; null when they vary. */
    private long[] extents(Op op, long extent) {
        if (op.input(1) == null) {
            return ones(extent);
        }
        long[] sizes = constant(op.input(1));
        boolean scalar = sizes != null && trace.shape(op.input(1), 0).length == 0;
        if (!scalar || sizes[0] <= 0) {
            return scalar ? null : sizes;
        }
        long[] parts = new long[Math.toIntExact((extent + sizes[0] - 1) / sizes[0])];
        for (int i = 0; i < parts.length; i++) {
            parts[i] = Math.min(sizes[0], extent - i * sizes[0]);
        }
        return parts;
    }

    private static long[] ones(long count) {
        long[] ones = new long[Math.toIntExact(count)];
        Arrays.fill(ones, 1);
        return ones;
    }

    private boolean insert(Op op) {
        List<String> parts = elements.get(op.input(0));
        Integer position = parts == null ? null : position(op, 2, parts.size(), parts.size() + 1);
        if (position == null) {
            return false;
        }
        List<String> longer = new ArrayList<>(parts);
        longer.add(position, op.input(1).name());
        return define(op, longer);
    }

    private boolean erase(Op op) {
        List<String> parts = elements.get(op.input(0));
        Integer position = parts == null ? null : position(op, 1, parts.size() - 1, parts.size());
        if (position == null) {
            return false;
        }
        List<String> shorter = new ArrayList<>(parts);
        shorter.remove(position.intValue());
        return define(op, shorter);
    }

    private boolean at(Op op) {
        List<String> parts = elements.get(op.input(0));
        Integer position = parts == null ? null : position(op, 1, -1, parts.size());
        if (position != null) {
            emit(op, "Identity", List.of(parts.get(position)), Map.of());
        }
        return position != null;
    }

    private boolean length(Op op) {
        List<String> parts = elements.get(op.input(0));
        if (parts != null) {
            Tensor count = Tensor.ofIndices(DType.INT64, new long[0], parts.size());
            emit(op, "Constant", List.of(), Map.of("value", new Attribute.Constant(count)));
        }
        return parts != null;
    }

    private boolean concat(Op op) {
        List<String> parts = elements.get(op.input(0));
        if (parts == null || parts.isEmpty()) {
            return false;
        }
        long axis = op.node().intAttribute("axis", 0);
        boolean stacks = op.node().intAttribute("new_axis", 0) == 1;
        List<String> joined =
                stacks ? parts.stream().map(part -> unsqueeze(part, axis)).toList() : parts;
        emit(op, "Concat", joined, Map.of("axis", integer(axis)));
        return true;
    }

    private String unsqueeze(String part, long axis) {
        return hasAxesAsInputs()
                ? builder.add("Unsqueeze", part, builder.ints(axis))
                : builder.add("Unsqueeze", List.of(part), Map.of("axes", new Attribute.Ints(List.of(axis))));
    }

    private void emit(Op op, String operator, List<String> inputs, Map<String, Attribute> attributes) {
        builder.add(
                Node.of(op.node().name(), operator, inputs, List.of(op.output(0).name()), attributes));
    }

    /** Since opset 13, Split and Unsqueeze take their sizes and axes as inputs. */
    private boolean hasAxesAsInputs() {
        return program.model().opset() >= 13;
    }

    /** The index that an operand states, below {@code count}; null when it varies or is out of range. */
    private Integer position(Op op, int input, int otherwise, int count) {
        if (op.input(input) == null) {
            return otherwise < 0 ? null : otherwise;
        }
        long[] stated = constant(op.input(input));
        if (stated == null || stated.length != 1) {
            return null;
        }
        // A negative index of SequenceInsert counts from the end of the sequence before.
        long length = op.node().is("SequenceInsert") ? count - 1L : count;
        long position = stated[0] < 0 ? stated[0] + length : stated[0];
        return position < 0 || position >= count ? null : Integer.valueOf((int) position);
    }

    /** The elements of a value that no input changes; null for any other value. */
    private long[] constant(Value value) {
        long[] first = trace.contents(value, 0);
        boolean same = first != null && Arrays.equals(first, trace.contents(value, 1));
        return same && !readsInputs(value) ? first : null;
    }

    /** Whether a value is computed from the contents of graph inputs, not only from shapes. */
    private static boolean readsInputs(Value value) {
        Set<Value> seen = new HashSet<>();
        Deque<Value> open = new ArrayDeque<>(List.of(value));
        while (!open.isEmpty()) {
            Value current = open.pop();
            Op producer = current.producer();
            if (current.constant() != null || !seen.add(current)) {
                continue;
            }
            if (producer == null) {
                return true;
            }
            if (!producer.node().is("Shape") && !producer.node().is("Size")) {
                producer.inputs().stream().filter(Objects::nonNull).forEach(open::push);
            }
        }
        return false;
    }

    private static Attribute integer(long value) {
        return new Attribute.Int(value);
    }

    /** Keeps each sequence that something else reads, with all its readers. Returns the names of the other ones. */
    private Set<String> dropUnread() {
        Set<Value> results = new HashSet<>(program.outputs());
        program.ops().stream()
                .filter(op -> op.node().is("If"))
                .flatMap(op -> program.branchOutputs(op.node()).stream())
                .forEach(results::addAll);
        boolean changed = true;
        while (changed) {
            changed = false;
            for (Value sequence : List.copyOf(elements.keySet())) {
                boolean read = results.contains(sequence)
                        || !replacements.containsKey(sequence.producer().node())
                        || sequence.uses().stream()
                                .anyMatch(use ->
                                        !replacements.containsKey(use.op().node()));
                if (read) {
                    elements.remove(sequence);
                    replacements.remove(sequence.producer().node());
                    sequence.uses().forEach(use -> replacements.remove(use.op().node()));
                    changed = true;
                }
            }
        }
        Set<String> names = new HashSet<>();
        elements.keySet().forEach(sequence -> names.add(sequence.name()));
        return names;
    }

    private Graph rebuilt(Graph graph, Set<String> dropped) {
        List<Node> nodes = new ArrayList<>();
        for (Node node : graph.nodes()) {
            if (replacements.containsKey(node)) {
                nodes.addAll(replacements.get(node));
                continue;
            }
            Node changed = node;
            for (Map.Entry<String, Attribute> attribute : node.attributes().entrySet()) {
                if (node.is("If") && attribute.getValue() instanceof Attribute.Body body) {
                    changed = changed.withAttribute(
                            attribute.getKey(), new Attribute.Body(rebuilt(body.graph(), dropped)));
                }
            }
            nodes.add(changed);
        }
        List<ValueInfo> values = graph.values().stream()
                .filter(value -> !dropped.contains(value.name()))
                .toList();
        return graph.withNodes(nodes).withValues(values);
    }
}
