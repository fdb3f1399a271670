// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.rewrite;

import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Absence;
import io.onnxprune.dims.Dim;
import io.onnxprune.dims.DimensionAnalysis;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Slicing;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.LongStream;

/**
 * Builds the pruned model: every constant is sliced at each of its uses, every stale number is patched, and declared
 * shapes are updated.
 */
public final class Slicer {
    /** Marks constants that number the indices of an axis, which are numbered again. */
    private static final String NUMBERING = "numbering";

    private final Structure structure;
    private final DimensionAnalysis analysis;
    private final Dim.Keep keep;
    private final GraphEditor editor;
    private final Map<Value, Tensor> updates;
    private final Map<String, String> gathers = new HashMap<>();
    private final Map<String, Tensor> replaced = new HashMap<>();
    private final Map<String, Slice> slices = new LinkedHashMap<>();

    /**
     * The origin of a constant of the pruned model.
     *
     * @param source name of the constant in the model that was sliced
     * @param kept kept indices of each axis, ascending; null for all
     */
    @SuppressWarnings("ArrayRecordComponent") // never compared
    public record Slice(String source, int[][] kept) {}

    /**
     * A pruned model.
     *
     * @param slices by name, the origin of those constants that differ from the original's
     */
    public record Sliced(Model model, Map<String, Slice> slices) {}

    private Slicer(Structure structure, Dim.Keep keep, Map<Value, Tensor> updates) {
        this.structure = structure;
        this.analysis = structure.analysis();
        this.keep = keep;
        this.updates = updates;
        this.editor = new GraphEditor(analysis.program().model());
    }

    /**
     * The model with only the kept indices of each dimension; the model itself when nothing changes.
     *
     * @param updates new full-size contents of constants, which compensate for the pruned units
     * @throws UserException when a size is computed in a way that cannot be patched
     */
    public static Model slice(Structure structure, Dim.Keep keep, Map<Value, Tensor> updates) {
        return trace(structure, keep, updates).model();
    }

    /**
     * The model with only the kept indices of each dimension, and the origin of each changed constant.
     *
     * @param updates new full-size contents of constants, which compensate for the pruned units
     * @throws UserException when a size is computed in a way that cannot be patched
     */
    public static Sliced trace(Structure structure, Dim.Keep keep, Map<Value, Tensor> updates) {
        DimensionAnalysis analysis = structure.analysis();
        boolean slices = structure.dimensions().stream().anyMatch(dimension -> keep.kept(dimension.atom()) != null);
        if (!slices && updates.isEmpty()) {
            return new Sliced(analysis.program().model(), Map.of());
        }
        Slicer slicer = new Slicer(structure, keep, updates);
        Model model = slicer.run();
        return new Sliced(model, slicer.slices);
    }

    /**
     * Other contents for an initializer, sliced as the initializer is.
     *
     * @param contents of the initializer's extents, except where these are open, such as the rank of an adapter
     * @throws UserException when the extents differ
     */
    public static Tensor sliceLike(Structure structure, Dim.Keep keep, Value initializer, Tensor contents) {
        DimensionAnalysis analysis = structure.analysis();
        Use use = initializer.uses().isEmpty() ? null : initializer.uses().get(0);
        Dim[] dims = use == null ? null : analysis.constantUses().get(use);
        if (dims == null) {
            return contents;
        }
        int[][] kept = new int[dims.length][];
        for (int axis = 0; axis < dims.length; axis++) {
            boolean open = dims[axis].isDynamic();
            if (contents.rank() != dims.length || !open && dims[axis].size(0) != contents.dim(axis)) {
                throw new UserException("\"%s\" is %s, and the model takes %s"
                        .formatted(initializer.name(), contents, initializer.constant()));
            }
            kept[axis] = open ? null : dims[axis].kept(keep);
        }
        return Slicing.slice(contents, kept);
    }

    private Model run() {
        sliceConstants();
        analysis.sideUses().forEach(this::sliceSideValue);
        bypass(structure.absence(keep));
        new SplitEditor(analysis, keep, editor).removeParts();
        ShapePatcher patcher = new ShapePatcher(analysis, keep, editor);
        patcher.patch();
        patcher.patchAttributes();
        Model model = editor.apply(replaced);
        Graph graph = DeadCode.remove(analysis.program().model().graph(), model.graph());
        return model.withGraph(declareShapes(graph));
    }

    /** Connects the readers of an operator that only passes an operand on with that operand. */
    private void bypass(Absence absence) {
        List<Value> outputs = analysis.program().outputs();
        absence.passed().keySet().forEach(op -> {
            Value output = op.output(0);
            Value left = absence.left(output);
            output.uses().forEach(use -> editor.setInput(use.op().node(), use.input(), left.name()));
            if (outputs.contains(output)) {
                editor.replace(
                        op.node(),
                        Node.of(op.node().name(), "Identity", List.of(left.name()), List.of(output.name()), Map.of()));
            }
        });
    }

    private void sliceConstants() {
        Map<Value, List<Use>> uses = new LinkedHashMap<>();
        analysis.constantUses()
                .keySet()
                .forEach(use -> uses.computeIfAbsent(use.op().input(use.input()), key -> new ArrayList<>())
                        .add(use));
        uses.forEach(this::sliceConstant);
    }

    private void sliceConstant(Value value, List<Use> uses) {
        Map<String, List<Use>> bySlice = new LinkedHashMap<>();
        Map<String, int[][]> kept = new HashMap<>();
        String unsliced = Arrays.deepToString(new int[value.constant().rank()][]);
        for (Use use : uses) {
            int[][] indices = kept(analysis.constantUses().get(use), value.constant());
            boolean numbers = analysis.facts().numberings().contains(use);
            String slice = Arrays.deepToString(indices);
            String key = numbers && !slice.equals(unsliced) ? slice + NUMBERING : slice;
            kept.put(key, indices);
            bySlice.computeIfAbsent(key, unused -> new ArrayList<>()).add(use);
        }
        boolean everywhere = uses.size() == value.uses().size();
        // The unsliced tensor keeps the name if it is still used; else the first slice gets it.
        boolean nameTaken = bySlice.containsKey(unsliced) && !updates.containsKey(value) || !everywhere;
        for (Map.Entry<String, List<Use>> entry : bySlice.entrySet()) {
            if (entry.getKey().equals(unsliced) && !updates.containsKey(value)) {
                continue;
            }
            Tensor full = updates.getOrDefault(value, value.constant());
            int[][] indices = kept.get(entry.getKey());
            Tensor sliced = Slicing.slice(full, indices);
            if (entry.getKey().endsWith(NUMBERING)) {
                sliced = Tensor.ofIndices(
                        sliced.dtype(),
                        sliced.shape(),
                        LongStream.range(0, sliced.elements()).toArray());
            }
            if (!nameTaken && replaceInPlace(value, sliced)) {
                nameTaken = true;
                slices.put(value.name(), new Slice(value.name(), indices));
                continue;
            }
            String name = editor.addInitializer(value.name() + "_pruned", sliced);
            slices.put(name, new Slice(value.name(), indices));
            entry.getValue().forEach(use -> editor.setInput(use.op().node(), use.input(), name));
        }
    }

    private boolean replaceInPlace(Value value, Tensor sliced) {
        Program program = analysis.program();
        if (program.initializers().get(value.name()) == value) {
            replaced.put(value.name(), sliced);
            return true;
        }
        if (value.producer() != null) {
            Node constant = value.producer().node();
            if (constant.attributes().containsKey("value")) {
                editor.replace(constant, constant.withAttribute("value", new Attribute.Constant(sliced)));
                return true;
            }
        }
        return false;
    }

    /** Slices a side value for one block by a Gather, when the block keeps fewer indices. */
    private void sliceSideValue(Use use, Dim[] dims) {
        String value = editor.current(use.op().node()).input(use.input());
        for (int axis = 0; axis < dims.length; axis++) {
            if (dims[axis].isDynamic() || dims[axis].size(0, keep) == dims[axis].size(0)) {
                continue;
            }
            long[] kept = Arrays.stream(dims[axis].kept(keep)).asLongStream().toArray();
            String source = value;
            int gathered = axis;
            String key = use.op().branch().hashCode() + source + "/" + axis + Arrays.toString(kept);
            value = gathers.computeIfAbsent(key, unused -> {
                String name = editor.freshName(source + "_pruned");
                String indices = editor.addInitializer(
                        name + "_kept", Tensor.ofIndices(DType.INT64, new long[] {kept.length}, kept));
                editor.insertBefore(
                        use.op().node(),
                        Node.of(
                                editor.freshName(name + "_gather"),
                                "Gather",
                                List.of(source, indices),
                                List.of(name),
                                Map.of("axis", new Attribute.Int(gathered))));
                return name;
            });
        }
        if (!value.equals(editor.current(use.op().node()).input(use.input()))) {
            editor.setInput(use.op().node(), use.input(), value);
        }
    }

    /** Kept indices of each axis; null for an unpruned axis. */
    private int[][] kept(Dim[] dims, Tensor tensor) {
        int[][] kept = new int[dims.length][];
        for (int axis = 0; axis < dims.length; axis++) {
            if (dims[axis].size(0, keep) != tensor.dim(axis)) {
                kept[axis] = dims[axis].kept(keep);
            }
        }
        return kept;
    }

    /**
     * Updates the declared shapes of inputs, outputs and inner values; declarations of unknown inner values are
     * dropped.
     */
    private Graph declareShapes(Graph graph) {
        Map<String, Value> known = new HashMap<>();
        for (Program.Op op : analysis.program().ops()) {
            if (op.branch().isEmpty()) {
                op.outputs().stream().filter(value -> value != null).forEach(value -> known.put(value.name(), value));
            }
        }
        analysis.program().inputs().forEach(value -> known.put(value.name(), value));
        known.putAll(analysis.program().initializers());
        List<ValueInfo> values = new ArrayList<>();
        for (ValueInfo info : graph.values()) {
            Value value = known.get(info.name());
            if (value != null && value.constant() == null && analysis.trace().isKnown(value)) {
                values.add(declared(info, value));
            }
        }
        return withoutInnerShapes(graph)
                .withValues(values)
                .withInterface(
                        graph.inputs().stream()
                                .map(info -> declared(info, known.get(info.name())))
                                .toList(),
                        graph.outputs().stream()
                                .map(info -> declared(info, known.get(info.name())))
                                .toList());
    }

    private ValueInfo declared(ValueInfo info, Value value) {
        if (value != null && value.constant() != null && info.shape() != null) {
            // The initializer is only the default: a caller may give another extent where a symbol is declared.
            Tensor tensor = replaced.getOrDefault(value.name(), value.constant());
            List<ValueInfo.Extent> shape = new ArrayList<>();
            for (int axis = 0; axis < info.shape().size(); axis++) {
                ValueInfo.Extent extent = info.shape().get(axis);
                boolean numbered = extent.isKnown() && info.shape().size() == tensor.rank();
                shape.add(numbered ? ValueInfo.Extent.of(tensor.dim(axis)) : extent);
            }
            return info.withShape(shape);
        }
        Dim[] dims = value == null ? null : analysis.dims(value);
        if (info.shape() == null || dims == null || dims.length != info.shape().size()) {
            return info;
        }
        List<ValueInfo.Extent> shape = new ArrayList<>(info.shape());
        for (int axis = 0; axis < dims.length; axis++) {
            long size = dims[axis].size(0, keep);
            if (shape.get(axis).isKnown() && size != dims[axis].size(0)) {
                shape.set(axis, ValueInfo.Extent.of(size));
            } else if (size != dims[axis].size(0) && dims[axis].isDynamic()) {
                // A symbol for a product such as batch × heads is no longer valid.
                shape.set(axis, new ValueInfo.Extent(-1, ""));
            }
        }
        return info.withShape(shape);
    }

    /** Removes the declared inner shapes in bodies of If and Loop; the runtime infers them again. */
    private static Graph withoutInnerShapes(Graph graph) {
        List<Node> nodes = new ArrayList<>();
        for (Node node : graph.nodes()) {
            Node changed = node;
            for (Map.Entry<String, Attribute> attribute : node.attributes().entrySet()) {
                if (attribute.getValue() instanceof Attribute.Body body) {
                    Graph inner = withoutInnerShapes(body.graph());
                    List<ValueInfo> outputs = inner.outputs().stream()
                            .map(output -> output.withShape(null))
                            .toList();
                    changed = changed.withAttribute(
                            attribute.getKey(),
                            new Attribute.Body(inner.withValues(List.of()).withInterface(inner.inputs(), outputs)));
                }
            }
            nodes.add(changed);
        }
        return graph.withNodes(nodes);
    }
}
