// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.rewrite;

import io.onnxprune.diag.UserException;
import io.onnxprune.dims.AnalysisFacts.SizeOperand;
import io.onnxprune.dims.Dim;
import io.onnxprune.dims.DimensionAnalysis;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;

/**
 * Gives each consumer of a shape the numbers that it needs after pruning. Elements that come from Shape adapt by
 * themselves. When a stored number is stale, only this consumer gets its own copy of the constant and of the
 * concatenation around it, because exporters share both between layers and between meanings.
 */
final class ShapePatcher {
    /** Operators that pass the elements of their first operand on in order. */
    private static final Set<String> TRANSPARENT = Set.of("Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape");

    private final DimensionAnalysis analysis;
    private final Dim.Keep keep;
    private final GraphEditor editor;
    private final Map<String, String> copies = new HashMap<>();

    ShapePatcher(DimensionAnalysis analysis, Dim.Keep keep, GraphEditor editor) {
        this.analysis = analysis;
        this.keep = keep;
        this.editor = editor;
    }

    /** Patches every integer operand that encodes a size. */
    void patch() {
        Map<Use, List<SizeOperand>> byOperand = new LinkedHashMap<>();
        for (SizeOperand size : analysis.facts().sizes()) {
            byOperand
                    .computeIfAbsent(new Use(size.op(), size.input()), key -> new ArrayList<>())
                    .add(size);
        }
        byOperand.forEach(this::patchOperand);
    }

    private void patchOperand(Use use, List<SizeOperand> sizes) {
        Value value = use.op().input(use.input());
        long[] first = analysis.unpatchedElements(value, 0, keep);
        long[] second = analysis.unpatchedElements(value, 1, keep);
        Map<Integer, Patch> stale = new TreeMap<>();
        for (SizeOperand size : sizes) {
            Patch patch = new Patch(
                    size.needed(0, keep), size.needed(1, keep), first[size.element()], second[size.element()]);
            if (patch.isNeeded()) {
                stale.put(size.element(), patch);
            }
        }
        if (!stale.isEmpty()) {
            String patched = patched(use.op(), value, stale);
            editor.setInput(use.op().node(), use.input(), patched != null ? patched : scaled(use.op(), value, stale));
        }
    }

    /** The value of an element in each of the two traced runs: the one that is needed, and the one without a patch. */
    private record Patch(long needed, long neededSecond, long unpatched, long unpatchedSecond) {
        boolean isNeeded() {
            return needed != unpatched || neededSecond != unpatchedSecond;
        }

        boolean isNumber() {
            return needed == neededSecond;
        }
    }

    /**
     * The name of a copy of {@code value} with the given elements, for {@code consumer}; null when none can be made.
     */
    private String patched(Op consumer, Value value, Map<Integer, Patch> stale) {
        if (value.constant() != null) {
            return stale.values().stream().allMatch(Patch::isNumber) ? patchedConstant(value, stale) : null;
        }
        Op producer = value.producer();
        if (producer == null || !producer.node().domain().isEmpty()) {
            return null;
        }
        if (producer.node().is("Concat")) {
            return patchedConcat(consumer, producer, stale);
        }
        if (TRANSPARENT.contains(producer.node().op())) {
            String inner = patched(consumer, producer.input(0), stale);
            return inner == null ? null : copy(consumer, producer.node().withInput(0, inner));
        }
        boolean scales = producer.node().is("Mul") || producer.node().is("Div");
        return scales && stale.size() == 1 && stale.containsKey(0)
                ? patchedFactor(consumer, producer, stale.get(0))
                : null;
    }

    /** A copy of x × 2 or x / 4 with another number, where x itself adapts to the shapes. */
    private String patchedFactor(Op consumer, Op producer, Patch patch) {
        boolean divides = producer.node().is("Div");
        for (int operand = divides ? 1 : 0; operand < 2; operand++) {
            long[] first = analysis.unpatchedElements(producer.input(1 - operand), 0, keep);
            long[] second = analysis.unpatchedElements(producer.input(1 - operand), 1, keep);
            if (first == null || first.length != 1 || patch.needed == 0 || first[0] == 0) {
                continue;
            }
            long number = divides ? first[0] / patch.needed : patch.needed / first[0];
            boolean fits = divides
                    ? number != 0 && first[0] / number == patch.needed && second[0] / number == patch.neededSecond
                    : number * first[0] == patch.needed && number * second[0] == patch.neededSecond;
            if (fits) {
                Patch factor = new Patch(number, number, 0, 0);
                String constant = patched(consumer, producer.input(operand), new TreeMap<>(Map.of(0, factor)));
                if (constant != null) {
                    return copy(consumer, producer.node().withInput(operand, constant));
                }
            }
        }
        return null;
    }

    private String patchedConstant(Value value, Map<Integer, Patch> stale) {
        long[] numbers = value.constant().toLongs();
        stale.forEach((element, patch) -> numbers[element] = patch.needed);
        String key = "constant " + System.identityHashCode(value) + Arrays.toString(numbers);
        return copies.computeIfAbsent(
                key,
                unused -> editor.addInitializer(
                        value.name() + "_pruned",
                        Tensor.ofIndices(
                                value.constant().dtype(), value.constant().shape(), numbers)));
    }

    /** Patches the parts with stale elements; null when one of them cannot be patched. */
    private String patchedConcat(Op consumer, Op concat, Map<Integer, Patch> stale) {
        Node node = concat.node();
        int offset = 0;
        for (int i = 0; i < concat.inputs().size(); i++) {
            Value part = concat.input(i);
            long[] contents = analysis.trace().contents(part, 0);
            if (contents == null) {
                return null;
            }
            Map<Integer, Patch> inside = new TreeMap<>();
            for (Map.Entry<Integer, Patch> entry : stale.entrySet()) {
                int element = entry.getKey() - offset;
                if (element >= 0 && element < contents.length) {
                    inside.put(element, entry.getValue());
                }
            }
            if (!inside.isEmpty()) {
                String patched = patched(consumer, part, inside);
                if (patched == null) {
                    return null;
                }
                node = node.withInput(i, patched);
            }
            offset += contents.length;
        }
        return copy(consumer, node);
    }

    /** Inserts a copy of a node with changed inputs before the consumer; equal copies for one consumer are shared. */
    private String copy(Op consumer, Node changed) {
        String key = consumer.index() + changed.op() + changed.inputs();
        return copies.computeIfAbsent(key, unused -> {
            String name = editor.freshName(changed.output(0) + "_pruned");
            editor.insertBefore(
                    consumer.node(),
                    changed.withOutputs(List.of(name))
                            .withName(changed.name().isEmpty() ? "" : editor.freshName(changed.name() + "_pruned")));
            return name;
        });
    }

    /** value × needed / unpatched, element-wise, for sizes that are computed and not stored. */
    private String scaled(Op consumer, Value value, Map<Integer, Patch> stale) {
        long[] contents = analysis.trace().contents(value, 0);
        long[] numerators = new long[contents.length];
        long[] denominators = new long[contents.length];
        Arrays.fill(numerators, 1);
        Arrays.fill(denominators, 1);
        stale.forEach((element, patch) -> {
            numerators[element] = patch.needed;
            denominators[element] = patch.unpatched;
            boolean proportional = patch.neededSecond * patch.unpatched == patch.needed * patch.unpatchedSecond;
            if (patch.unpatched == 0 || !proportional) {
                throw new UserException("cannot patch the size " + patch.unpatched + " to " + patch.needed
                        + " in operand \"" + value.name() + "\" of node "
                        + consumer.node().label() + "; protect the dimensions that it depends on");
            }
        });
        DType dtype = analysis.trace().dtype(value);
        long[] shape = analysis.trace().shape(value, 0);
        String multiplied = binary(consumer, "Mul", value.name(), dtype, shape, numerators);
        return binary(consumer, "Div", multiplied, dtype, shape, denominators);
    }

    private String binary(Op consumer, String operator, String left, DType dtype, long[] shape, long[] numbers) {
        String constant = editor.addInitializer(left + "_factor", Tensor.ofIndices(dtype, shape, numbers));
        String result = editor.freshName(left + "_scaled");
        editor.insertBefore(
                consumer.node(),
                Node.of(
                        editor.freshName(result + "_node"),
                        operator,
                        List.of(left, constant),
                        List.of(result),
                        Map.of()));
        return result;
    }

    /** Patches attributes that hold sizes, and equal splits whose parts are no longer equal. */
    void patchAttributes() {
        analysis.facts().attributes().forEach(size -> {
            Node node = editor.current(size.op().node());
            long needed = size.dim().size(0, keep);
            if (size.element() < 0) {
                if (node.intAttribute(size.attribute(), needed) != needed) {
                    editor.replace(size.op().node(), node.withAttribute(size.attribute(), new Attribute.Int(needed)));
                }
            } else {
                List<Long> values = new ArrayList<>(node.intsAttribute(size.attribute()));
                values.set(size.element(), needed);
                editor.replace(size.op().node(), node.withAttribute(size.attribute(), new Attribute.Ints(values)));
            }
        });
        analysis.facts().equalSplits().forEach(split -> {
            long[] sizes =
                    split.parts().stream().mapToLong(part -> part.size(0, keep)).toArray();
            long[] before =
                    split.parts().stream().mapToLong(part -> part.size(0)).toArray();
            boolean equal = Arrays.stream(sizes).distinct().count() == 1;
            if (!equal && !Arrays.equals(sizes, before)) {
                makeExplicit(split.op().node(), sizes);
            }
        });
    }

    private void makeExplicit(Node split, long[] sizes) {
        Map<String, Attribute> attributes =
                new LinkedHashMap<>(editor.current(split).attributes());
        attributes.remove("num_outputs");
        Node current = editor.current(split);
        boolean byInput = analysis.program().model().opset() >= 13;
        if (!byInput) {
            attributes.put(
                    "split", new Attribute.Ints(Arrays.stream(sizes).boxed().toList()));
        }
        Node changed = new Node(
                current.name(),
                current.domain(),
                current.op(),
                current.inputs(),
                current.outputs(),
                attributes,
                current.rest());
        editor.replace(
                split,
                byInput
                        ? changed.withInput(
                                1,
                                editor.addInitializer(
                                        split.output(0) + "_sizes",
                                        Tensor.ofIndices(DType.INT64, new long[] {sizes.length}, sizes)))
                        : changed);
    }
}
