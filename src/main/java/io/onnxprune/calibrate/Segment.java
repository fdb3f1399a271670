// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.calibrate.Partition.Piece;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.GraphBuilder;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;

/**
 * A part of a lowered program that runs by itself. It has the stream applications of a {@link Piece} and all
 * applications beside the stream that they need, except those whose values an earlier segment passes on.
 */
final class Segment {
    private final DataFlow flow;
    private final Piece piece;
    private final Set<Op> ops = new TreeSet<>(Comparator.comparingInt(Op::index));
    private final Set<Value> given = new LinkedHashSet<>();
    private final Set<Value> taken = new LinkedHashSet<>();
    private final Set<Value> yielded = new LinkedHashSet<>();
    private final Map<String, Value> constants = new LinkedHashMap<>();
    private final Map<String, Value> results = new HashMap<>();

    private Segment(DataFlow flow, Piece piece) {
        this.flow = flow;
        this.piece = piece;
    }

    /** The segments of {@code pieces}, in order, with the side values that each passes to later ones. */
    static List<Segment> of(DataFlow flow, List<Piece> pieces) {
        return new Assembly(flow, pieces).segments;
    }

    /** The stream value at the start; null for the first segment. */
    Value input() {
        return piece.input();
    }

    /** The stream value at the start as a set; empty for the first segment. */
    Set<Value> inputs() {
        return piece.input() == null ? Set.of() : Set.of(piece.input());
    }

    /** The stream value at the end; the logits for the last segment. */
    Value output() {
        return piece.output();
    }

    /** All operator applications, in order of execution. */
    List<Op> ops() {
        return List.copyOf(ops);
    }

    /** The graph inputs of the model that the segment uses. */
    Set<Value> given() {
        return given;
    }

    /** The values beside the stream that earlier segments compute for this one. */
    Set<Value> taken() {
        return taken;
    }

    /** The values beside the stream that later segments use. */
    Set<Value> yielded() {
        return yielded;
    }

    /** The constants of the segment, by name. */
    Map<String, Value> constants() {
        return constants;
    }

    /** The constant or computed value of this name in this segment, or null. */
    Value find(String name) {
        return constants.getOrDefault(name, results.get(name));
    }

    /** The constant, computed value or stream input of this name, or null. */
    Value findOrInput(String name) {
        return input() != null && input().name().equals(name) ? input() : find(name);
    }

    private boolean add(Op op) {
        for (Value output : op.outputs()) {
            if (output != null) {
                results.put(output.name(), output);
            }
        }
        return ops.add(op);
    }

    /**
     * The segment as a model, without nodes that the outputs do not need.
     *
     * @param replaced new contents for constants, by name
     * @param known values that are fed instead of computed
     * @param added nodes that calibration appends to those of the segment
     * @param addedInputs their inputs, beside the values of the segment
     * @param outputs the names of the outputs
     */
    Model model(
            Map<String, Tensor> replaced,
            Set<Value> known,
            GraphBuilder added,
            List<ValueInfo> addedInputs,
            Set<String> outputs) {
        List<ValueInfo> inputs = new ArrayList<>();
        given.forEach(value -> inputs.add(declare(value)));
        taken.forEach(value -> inputs.add(declare(value)));
        if (input() != null) {
            inputs.add(declare(input()));
        }
        Set<String> knownNames = new HashSet<>();
        for (Value value : known) {
            inputs.add(declare(value));
            knownNames.add(value.name());
        }
        inputs.addAll(addedInputs);
        List<ValueInfo> declared =
                outputs.stream().map(name -> declare(name, DType.UNDEFINED)).toList();
        Map<String, Tensor> initializers = new LinkedHashMap<>();
        constants.forEach((name, value) -> initializers.put(name, replaced.getOrDefault(name, value.constant())));
        initializers.putAll(added.initializers());
        List<Node> nodes = new ArrayList<>();
        ops.forEach(op -> nodes.add(op.node()));
        nodes.removeIf(node -> node.outputs().stream().anyMatch(knownNames::contains));
        nodes.addAll(added.nodes());
        Model program = flow.program().model();
        Graph graph = new Graph("segment", inputs, declared, List.of(), initializers, nodes, new byte[0]);
        Set<String> needed = graph.needed();
        nodes.removeIf(node -> node.outputs().stream().noneMatch(needed::contains));
        return program.withGraph(graph.withNodes(nodes));
    }

    private ValueInfo declare(Value value) {
        return declare(value.name(), flow.trace().dtype(value));
    }

    static ValueInfo declare(String name, DType dtype) {
        return new ValueInfo(name, dtype, null, new byte[0]);
    }

    /** Assigns every application beside the stream to the segments that run it. */
    private static final class Assembly {
        private final DataFlow flow;
        private final List<Segment> segments = new ArrayList<>();
        private final Map<Op, Integer> owners = new LinkedHashMap<>();

        Assembly(DataFlow flow, List<Piece> pieces) {
            this.flow = flow;
            for (Piece piece : pieces) {
                for (Op op : piece.ops()) {
                    owners.put(op, segments.size());
                }
                segments.add(new Segment(flow, piece));
            }
            for (Op op : flow.program().ops()) {
                owners.computeIfAbsent(op, key -> owner(key));
            }
            for (int index = 0; index < segments.size(); index++) {
                for (Op op : pieces.get(index).ops()) {
                    include(op, index);
                }
            }
        }

        /** The first segment that has all operands of the application. */
        private int owner(Op op) {
            int owner = 0;
            for (Value input : op.inputs()) {
                if (input != null && input.producer() != null && !flow.isLocal(input)) {
                    owner = Math.max(owner, owners.getOrDefault(input.producer(), 0));
                }
            }
            return owner;
        }

        private void include(Op op, int index) {
            if (segments.get(index).add(op)) {
                for (Value input : op.inputs()) {
                    if (input != null) {
                        demand(input, index);
                    }
                }
            }
        }

        private void demand(Value value, int index) {
            Segment segment = segments.get(index);
            if (value == segment.input()) {
                return;
            }
            if (value.producer() == null) {
                if (value.constant() == null) {
                    segment.given.add(value);
                } else {
                    segment.constants.put(value.name(), value);
                }
                return;
            }
            int owner = flow.isLocal(value) ? index : owners.get(value.producer());
            if (owner < index) {
                segment.taken.add(value);
                segments.get(owner).yielded.add(value);
                include(value.producer(), owner);
            } else {
                include(value.producer(), index);
            }
        }
    }
}
