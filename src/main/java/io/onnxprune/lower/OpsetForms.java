// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Rewrites operators of older sets to the form of {@link #TARGET}: attributes that became inputs are moved, and
 * changed semantics are spelled out. Operators that are not listed have not changed since {@link #OLDEST}.
 */
final class OpsetForms {
    /** The operator set that models are upgraded to; newer models keep theirs. */
    static final long TARGET = 20;

    /** The IR version that belongs to {@link #TARGET}. */
    static final long IR_VERSION = 9;

    /** The oldest supported operator set: the first with today's broadcasting. */
    static final long OLDEST = 7;

    /** An attribute that became an input, and the position of that input. */
    private record Moved(String attribute, int position) {}

    private static final Map<String, List<Moved>> MOVED = new HashMap<>();
    private static final Map<String, Decompositions.Decomposition> REWRITTEN = new HashMap<>();

    static {
        for (String operator : List.of("ReduceSum", "Squeeze", "Unsqueeze")) {
            MOVED.put(operator, List.of(new Moved("axes", 1)));
        }
        for (String operator : List.of(
                "ReduceMean",
                "ReduceMax",
                "ReduceMin",
                "ReduceProd",
                "ReduceL1",
                "ReduceL2",
                "ReduceLogSum",
                "ReduceLogSumExp",
                "ReduceSumSquare")) {
            MOVED.put(operator, List.of(new Moved("axes", 1)));
        }
        MOVED.put("Slice", List.of(new Moved("starts", 1), new Moved("ends", 2), new Moved("axes", 3)));
        MOVED.put("Clip", List.of(new Moved("min", 1), new Moved("max", 2)));
        MOVED.put("Pad", List.of(new Moved("pads", 1), new Moved("value", 2)));
        MOVED.put("TopK", List.of(new Moved("k", 1)));
        for (String operator : List.of("Softmax", "LogSoftmax", "Hardmax")) {
            REWRITTEN.put(operator, OpsetForms::flattened);
        }
        REWRITTEN.put("Split", OpsetForms::split);
    }

    private OpsetForms() {}

    /**
     * Appends the operator in its new form.
     *
     * @param opset the opset version of the model
     * @return whether it had to be changed; if not, nothing was appended
     */
    static boolean apply(RewriteContext c, long opset) {
        Node node = c.node();
        if (!node.domain().isEmpty()) {
            return false;
        }
        if (node.is("Dropout")) {
            return dropout(c);
        }
        if (MOVED.containsKey(node.op())) {
            return moved(c, MOVED.get(node.op()));
        }
        if (node.is("Scatter")) {
            c.graph()
                    .add(new Node(
                            node.name(),
                            "",
                            "ScatterElements",
                            node.inputs(),
                            node.outputs(),
                            node.attributes(),
                            node.rest()));
            return true;
        }
        boolean old = node.is("Split") ? opset < 18 : opset < 13;
        return old
                && REWRITTEN.containsKey(node.op())
                && REWRITTEN.get(node.op()).apply(c);
    }

    /** Turns attributes into inputs. A node without these attributes already has the new form. */
    private static boolean moved(RewriteContext c, List<Moved> moves) {
        Map<String, Attribute> attributes = new LinkedHashMap<>(c.node().attributes());
        List<String> inputs = new ArrayList<>(c.node().inputs());
        boolean changed = false;
        for (Moved move : moves) {
            Attribute value = attributes.remove(move.attribute);
            if (value != null) {
                while (inputs.size() <= move.position) {
                    inputs.add("");
                }
                inputs.set(move.position, operand(c, value));
                changed = true;
            }
        }
        if (!changed) {
            return false;
        }
        Node node = c.node();
        c.graph().add(new Node(node.name(), "", node.op(), inputs, node.outputs(), attributes, node.rest()));
        return true;
    }

    private static String operand(RewriteContext c, Attribute value) {
        if (value instanceof Attribute.Ints list) {
            return c.graph()
                    .ints(list.values().stream().mapToLong(Long::longValue).toArray());
        }
        if (value instanceof Attribute.Int number) {
            return c.graph().ints(number.value());
        }
        return c.scalar(((Attribute.Real) value).value());
    }

    /**
     * Before opset 13, Softmax, LogSoftmax and Hardmax normalised over all axes from {@code axis} on, as one matrix
     * row.
     */
    private static boolean flattened(RewriteContext c) {
        int rank = c.rank(0);
        int axis = Math.floorMod((int) c.node().intAttribute("axis", 1), rank);
        Map<String, Attribute> last = Map.of("axis", new Attribute.Int(-1));
        if (axis == rank - 1) {
            c.result(0, c.add(c.node().op(), List.of(c.in(0)), last));
            return true;
        }
        String matrix = c.add("Flatten", List.of(c.in(0)), Map.of("axis", new Attribute.Int(axis)));
        c.result(0, c.add("Reshape", c.add(c.node().op(), List.of(matrix), last), c.add("Shape", c.in(0))));
        return true;
    }

    /**
     * Before opset 13, Split had its sizes in an attribute. Before opset 18 it had no attribute for the number of
     * outputs.
     */
    private static boolean split(RewriteContext c) {
        Node node = c.node();
        List<Long> sizes = node.intsAttribute("split");
        Map<String, Attribute> attributes = new LinkedHashMap<>(node.attributes());
        List<String> inputs = new ArrayList<>(node.inputs());
        if (sizes != null) {
            attributes.remove("split");
            inputs.add(c.graph().ints(sizes.stream().mapToLong(Long::longValue).toArray()));
        } else if (!c.has(1)) {
            attributes.put("num_outputs", new Attribute.Int(node.outputs().size()));
        } else {
            return false;
        }
        c.graph().add(new Node(node.name(), "", node.op(), inputs, node.outputs(), attributes, node.rest()));
        return true;
    }

    /** Outside of training, Dropout is the identity. */
    private static boolean dropout(RewriteContext c) {
        if (c.has(2)
                && (c.operand(2).constant() == null || c.operand(2).constant().toLongs()[0] != 0)) {
            return false;
        }
        c.result(0, c.in(0));
        if (c.wants(1)) {
            String kept = c.constant(Tensor.of(
                    DType.BOOL, new long[0], io.onnxprune.ir.Bytes.of(java.nio.ByteBuffer.wrap(new byte[] {1}))));
            c.result(1, c.add("Expand", kept, c.add("Shape", c.in(0))));
        }
        return true;
    }
}
