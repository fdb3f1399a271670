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
 * Brings applications of operators of older sets into the form of {@link #TARGET}: what was an attribute becomes an input,
 * and what had another meaning is written out. Operators that are not listed mean the same since {@link #OLDEST}.
 */
final class OpsetForms {
    /** The operator set that models are raised to; newer models keep theirs. */
    static final long TARGET = 20;

    /** The IR version that goes with it. */
    static final long IR_VERSION = 9;

    /** The oldest operator set that is understood: the first with today's broadcasting. */
    static final long OLDEST = 7;

    /** An attribute that became an input at a position. */
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
     * Appends the application in its new form.
     *
     * @param opset the version that it was written for
     * @return whether it had to change
     */
    static boolean apply(RewriteContext s, long opset) {
        Node node = s.node();
        if (!node.domain().isEmpty()) {
            return false;
        }
        if (node.is("Dropout")) {
            return dropout(s);
        }
        if (MOVED.containsKey(node.op())) {
            return moved(s, MOVED.get(node.op()));
        }
        if (node.is("Scatter")) {
            s.graph()
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
                && REWRITTEN.get(node.op()).apply(s);
    }

    /** Attributes as inputs. A node that has none of them is in its new form already. */
    private static boolean moved(RewriteContext s, List<Moved> moves) {
        Map<String, Attribute> attributes = new LinkedHashMap<>(s.node().attributes());
        List<String> inputs = new ArrayList<>(s.node().inputs());
        boolean changed = false;
        for (Moved move : moves) {
            Attribute value = attributes.remove(move.attribute);
            if (value != null) {
                while (inputs.size() <= move.position) {
                    inputs.add("");
                }
                inputs.set(move.position, operand(s, value));
                changed = true;
            }
        }
        if (!changed) {
            return false;
        }
        Node node = s.node();
        s.graph().add(new Node(node.name(), "", node.op(), inputs, node.outputs(), attributes, node.rest()));
        return true;
    }

    private static String operand(RewriteContext s, Attribute value) {
        if (value instanceof Attribute.Ints list) {
            return s.graph()
                    .ints(list.values().stream().mapToLong(Long::longValue).toArray());
        }
        if (value instanceof Attribute.Int number) {
            return s.graph().ints(number.value());
        }
        return s.scalar(((Attribute.Real) value).value());
    }

    /** Softmax and its like before opset 13 worked on the matrix of all axes before and all from {@code axis} on. */
    private static boolean flattened(RewriteContext s) {
        int rank = s.rank(0);
        int axis = Math.floorMod((int) s.node().intAttribute("axis", 1), rank);
        Map<String, Attribute> last = Map.of("axis", new Attribute.Int(-1));
        if (axis == rank - 1) {
            s.result(0, s.add(s.node().op(), List.of(s.in(0)), last));
            return true;
        }
        String matrix = s.add("Flatten", List.of(s.in(0)), Map.of("axis", new Attribute.Int(axis)));
        s.result(0, s.add("Reshape", s.add(s.node().op(), List.of(matrix), last), s.add("Shape", s.in(0))));
        return true;
    }

    /** Split before opset 13 had its sizes in an attribute, and before 18 counted its results where it had none. */
    private static boolean split(RewriteContext s) {
        Node node = s.node();
        List<Long> sizes = node.intsAttribute("split");
        Map<String, Attribute> attributes = new LinkedHashMap<>(node.attributes());
        List<String> inputs = new ArrayList<>(node.inputs());
        if (sizes != null) {
            attributes.remove("split");
            inputs.add(s.graph().ints(sizes.stream().mapToLong(Long::longValue).toArray()));
        } else if (!s.has(1)) {
            attributes.put("num_outputs", new Attribute.Int(node.outputs().size()));
        } else {
            return false;
        }
        s.graph().add(new Node(node.name(), "", node.op(), inputs, node.outputs(), attributes, node.rest()));
        return true;
    }

    /** Dropout passes everything outside of training. */
    private static boolean dropout(RewriteContext s) {
        if (s.has(2)
                && (s.operand(2).constant() == null || s.operand(2).constant().toLongs()[0] != 0)) {
            return false;
        }
        s.result(0, s.in(0));
        if (s.wants(1)) {
            String kept = s.constant(Tensor.of(
                    DType.BOOL, new long[0], io.onnxprune.ir.Bytes.of(java.nio.ByteBuffer.wrap(new byte[] {1}))));
            s.result(1, s.add("Expand", kept, s.add("Shape", s.in(0))));
        }
        return true;
    }
}
