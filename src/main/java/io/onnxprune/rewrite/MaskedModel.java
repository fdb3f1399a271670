// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.rewrite;

import io.onnxprune.diag.UserException;
import io.onnxprune.dims.AnalysisFacts.Mean;
import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.DimensionAnalysis;
import io.onnxprune.dims.QuantizedOperands;
import io.onnxprune.dims.ResidualStream;
import io.onnxprune.dims.Role;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.Plan;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * The full-size model in which all units that a plan prunes are zero: the reference for slicing. Weights are
 * multiplied by masks at their use, removed residual branches by zero, and means are taken over the kept indices only,
 * as after slicing. It shares no code with {@link Slicer} except the dimensions.
 */
public final class MaskedModel {
    private final DimensionAnalysis analysis;
    private final Dim.Keep keep;
    private final GraphEditor editor;
    private final Map<String, String> masks = new HashMap<>();
    private int fresh;

    private MaskedModel(DimensionAnalysis analysis, Dim.Keep keep) {
        this.analysis = analysis;
        this.keep = keep;
        this.editor = new GraphEditor(analysis.program().model());
    }

    /**
     * The masked form of the model that {@code structure} describes.
     *
     * @param updates new full-size contents of constants, as given to the slicer
     */
    public static Model of(Structure structure, Plan plan, Map<Value, Tensor> updates) {
        MaskedModel masked = new MaskedModel(structure.analysis(), plan.keep(structure));
        updates.forEach(masked::update);
        masked.maskWeights();
        List<ResidualStream.Block> blocks = structure.stream().blocks();
        for (int i = 0; i < blocks.size(); i++) {
            if (plan.removesBlock(i, blocks.get(i).layer())) {
                masked.maskBranch(blocks.get(i));
            }
        }
        new MaskedChoices(masked, masked.analysis, masked.keep, masked.editor).apply();
        // This comes last, because it decomposes fused normalisations whose operands the steps before edit.
        masked.maskMeans();
        Model result = masked.editor.apply(Map.of());
        return result.withGraph(result.graph().withValues(List.of()));
    }

    /**
     * What normalisations beside the residual stream average over, where a plan prunes some of it: the heads of a norm that
     * spans all of them. Their means are over the kept indices here too, which plain zeros would not give.
     */
    public static Set<Role> averagedOverKept(Structure structure, Plan plan) {
        Dim.Keep keep = plan.keep(structure);
        Set<Role> roles = EnumSet.noneOf(Role.class);
        for (Mean mean : structure.analysis().facts().means()) {
            Dim[] dims = structure.analysis().operand(mean.op(), mean.input());
            boolean quantises = quantises(mean);
            for (Dimension dimension : structure.dimensions()) {
                boolean spans =
                        mean.axes().stream().anyMatch(axis -> dims[axis].atoms().contains(dimension.atom()));
                if (spans && !quantises && dimension.role() != Role.HIDDEN && keep.kept(dimension.atom()) != null) {
                    roles.add(dimension.role());
                }
            }
        }
        return roles;
    }

    private void maskWeights() {
        Set<Op> quantised = new LinkedHashSet<>();
        analysis.constantUses().forEach((use, dims) -> {
            Tensor tensor = use.op().input(use.input()).constant();
            List<Integer> pruned = prunedAxes(dims);
            if (pruned.isEmpty()) {
                return;
            }
            if (tensor.dtype().isFloat()) {
                String name = editor.current(use.op().node()).input(use.input());
                for (int axis : pruned) {
                    name = multiplied(use.op().node(), name, mask(dims, axis, tensor.dtype()));
                }
                editor.setInput(use.op().node(), use.input(), name);
            } else if (tensor.dtype().bits() <= 8) {
                quantised.add(use.op());
            }
        });
        // An integer weight cannot be masked by zeros, so the output is masked instead.
        quantised.forEach(op -> maskOutput(op, 0));
    }

    private void update(Value value, Tensor tensor) {
        String name = editor.addInitializer(value.name() + "_updated", tensor);
        value.uses().forEach(use -> editor.setInput(use.op().node(), use.input(), name));
    }

    private List<Integer> prunedAxes(Dim[] dims) {
        List<Integer> axes = new ArrayList<>();
        for (int axis = 0; axis < dims.length; axis++) {
            if (!dims[axis].isDynamic() && dims[axis].size(0, keep) != dims[axis].size(0)) {
                axes.add(axis);
            }
        }
        return axes;
    }

    /** An initializer of ones and zeros along one axis, with extent one on the others. */
    String mask(Dim[] dims, int axis, DType dtype) {
        int extent = Math.toIntExact(dims[axis].size(0));
        int[] kept = dims[axis].kept(keep);
        long[] shape = new long[dims.length - axis];
        java.util.Arrays.fill(shape, 1);
        shape[0] = extent;
        String key = dtype + java.util.Arrays.toString(shape) + java.util.Arrays.toString(kept);
        return masks.computeIfAbsent(key, unused -> {
            float[] values = new float[extent];
            long[] integers = new long[extent];
            for (int index : kept) {
                values[index] = 1;
                integers[index] = 1;
            }
            Tensor tensor = dtype.isFloat()
                    ? Tensor.ofFloats(dtype, shape, values)
                    : dtype == DType.BOOL
                            ? Tensor.ofBooleans(shape, integers)
                            : Tensor.ofIndices(dtype, shape, integers);
            return editor.addInitializer("onnx_prune_mask", tensor);
        });
    }

    private String multiplied(Node before, String left, String right) {
        return emit(before, "Mul", left, right);
    }

    String emit(Node before, String operator, String... inputs) {
        String result = editor.freshName("onnx_prune_oracle_" + fresh++);
        editor.insertBefore(before, Node.of(result, operator, List.of(inputs), List.of(result), Map.of()));
        return result;
    }

    private void maskOutput(Op op, int index) {
        Value output = op.output(index);
        Dim[] dims = analysis.dims(output);
        DType dtype = analysis.trace().dtype(output);
        int zero = QuantizedOperands.resultZero(op.node());
        if (!dtype.isFloat() && dtype != DType.INT32 && zero < 0) {
            return;
        }
        List<Integer> pruned = prunedAxes(dims);
        if (!pruned.isEmpty()) {
            String inner = rename(op, index);
            for (int i = 0; i < pruned.size(); i++) {
                boolean last = i == pruned.size() - 1;
                String result = last ? output.name() : editor.freshName("onnx_prune_oracle_" + fresh++);
                String mask = mask(dims, pruned.get(i), zero < 0 ? dtype : DType.BOOL);
                List<String> inputs = zero < 0
                        ? List.of(inner, mask)
                        : List.of(mask, inner, editor.current(op.node()).input(zero));
                editor.insertAfter(
                        op.node(),
                        Node.of(result + "_masked", zero < 0 ? "Mul" : "Where", inputs, List.of(result), Map.of()));
                inner = result;
            }
        }
    }

    /** Renames an output, so that a node after it can produce the old name. */
    private String rename(Op op, int index) {
        String inner = editor.freshName("onnx_prune_oracle_" + fresh++);
        List<String> outputs = new ArrayList<>(editor.current(op.node()).outputs());
        outputs.set(index, inner);
        editor.replace(op.node(), editor.current(op.node()).withOutputs(outputs));
        return inner;
    }

    private void maskMeans() {
        for (Mean mean : analysis.facts().means()) {
            Dim[] dims = analysis.operand(mean.op(), mean.input());
            List<Integer> pruned = prunedAxes(dims);
            pruned.retainAll(mean.axes());
            if (pruned.isEmpty()) {
                continue;
            }
            if (quantises(mean)) {
                maskInput(mean.op(), dims, pruned);
            } else if (mean.op().node().is("ReduceMean")) {
                maskReduceMean(mean.op(), dims, pruned);
            } else {
                new MaskedNormalization(mean.op(), dims, pruned).build();
            }
        }
    }

    /** Whether the statistic is the range of activations that are quantised at run time. */
    private static boolean quantises(Mean mean) {
        return mean.op().node().op().startsWith("DynamicQuantize");
    }

    private double shrinkage(Dim[] dims, List<Integer> axes) {
        double ratio = 1;
        for (int axis : axes) {
            ratio *= (double) dims[axis].size(0) / dims[axis].size(0, keep);
        }
        return ratio;
    }

    /** Σ over kept / number of kept = mean over all of the masked operand × number of all / number of kept. */
    private void maskReduceMean(Op op, Dim[] dims, List<Integer> pruned) {
        DType dtype = analysis.trace().dtype(op.input(0));
        maskInput(op, dims, pruned);
        String inner = rename(op, 0);
        String factor = scalar(dtype, shrinkage(dims, pruned));
        editor.insertAfter(
                op.node(),
                Node.of(
                        inner + "_scaled",
                        "Mul",
                        List.of(inner, factor),
                        List.of(op.output(0).name()),
                        Map.of()));
    }

    private void maskInput(Op op, Dim[] dims, List<Integer> pruned) {
        DType dtype = analysis.trace().dtype(op.input(0));
        String x = editor.current(op.node()).input(0);
        for (int axis : pruned) {
            x = multiplied(op.node(), x, mask(dims, axis, dtype));
        }
        editor.setInput(op.node(), 0, x);
    }

    private String scalar(DType dtype, double value) {
        return editor.addInitializer("onnx_prune_scalar", Tensor.ofFloats(dtype, new long[0], (float) value));
    }

    /** A fused layer normalisation, decomposed with statistics over the kept indices. */
    private final class MaskedNormalization {
        private final Op op;
        private final Node node;
        private final Dim[] dims;
        private final List<Integer> axes;
        private final DType dtype;

        MaskedNormalization(Op op, Dim[] dims, List<Integer> axes) {
            this.op = op;
            this.node = op.node();
            this.dims = dims;
            this.axes = axes;
            this.dtype = analysis.trace().dtype(op.input(0));
        }

        void build() {
            boolean skip = ResidualStream.isSkipNormalization(op);
            boolean centred = node.is("LayerNormalization") || node.is("SkipLayerNormalization");
            if (!axes.equals(List.of(dims.length - 1)) || op.output(1) != null || op.output(2) != null) {
                throw new UserException("verification does not support the statistics outputs of node " + node.label()
                        + "; protect its width or run with --no-verify");
            }
            Node current = editor.current(node);
            String x = current.input(0);
            if (skip) {
                x = emit(node, "Add", x, current.input(1));
                int bias = centred ? 4 : 3;
                if (!current.input(bias).isEmpty()) {
                    x = emit(node, "Add", x, current.input(bias));
                }
            }
            String kept = mask(dims, dims.length - 1, dtype);
            String value = multiplied(node, x, kept);
            if (centred) {
                value = multiplied(node, emit(node, "Sub", value, mean(value)), kept);
            }
            String variance = emit(
                    node,
                    "Add",
                    mean(multiplied(node, value, value)),
                    scalar(dtype, node.floatAttribute("epsilon", skip ? 1e-12f : 1e-5f)));
            value = emit(node, "Div", value, emit(node, "Sqrt", variance));
            value = multiplied(node, value, current.input(skip ? 2 : 1));
            int bias = skip ? 3 : 2;
            if (centred && !current.input(bias).isEmpty()) {
                value = emit(node, "Add", value, current.input(bias));
            }
            // The node itself becomes the last step, so that other edits of it stay valid.
            List<String> outputs = new ArrayList<>(List.of(node.output(0)));
            editor.replace(node, Node.of(node.name(), "Identity", List.of(value), outputs, Map.of()));
            if (op.output(3) != null) {
                editor.insertBefore(
                        node, Node.of(node.name() + "_sum", "Identity", List.of(x), List.of(node.output(3)), Map.of()));
            }
        }

        private String mean(String value) {
            String result = editor.freshName("onnx_prune_oracle_" + fresh++);
            editor.insertBefore(node, reduceMean(value, result));
            return multiplied(node, result, scalar(dtype, shrinkage(dims, axes)));
        }

        private Node reduceMean(String value, String result) {
            io.onnxprune.ir.Attribute last = new io.onnxprune.ir.Attribute.Ints(List.of(-1L));
            if (analysis.program().model().opset() < 18) {
                return Node.of(result, "ReduceMean", List.of(value), List.of(result), Map.of("axes", last));
            }
            String axesName =
                    editor.addInitializer("onnx_prune_axes", Tensor.ofIndices(DType.INT64, new long[] {1}, -1));
            return Node.of(result, "ReduceMean", List.of(value, axesName), List.of(result), Map.of());
        }
    }

    private void maskBranch(ResidualStream.Block block) {
        int operand = block.add().input(0) == block.base() ? 1 : 0;
        Node node = block.add().node();
        String zero = scalar(analysis.trace().dtype(block.branch()), 0);
        editor.setInput(node, operand, multiplied(node, editor.current(node).input(operand), zero));
        int bias = node.is("SkipLayerNormalization") ? 4 : 3;
        if (ResidualStream.isSkipNormalization(block.add()) && !node.input(bias).isEmpty()) {
            // A fused skip normalisation adds the bias of the block's last linear layer itself.
            editor.setInput(node, bias, multiplied(node, editor.current(node).input(bias), zero));
        }
    }
}
