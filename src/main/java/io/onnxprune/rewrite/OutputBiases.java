// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.rewrite;

import io.onnxprune.dims.ResidualStream;
import io.onnxprune.dims.Structure;
import io.onnxprune.dims.Trace;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.plan.LinearLayers;
import java.util.Collection;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * The biases of linear layers X·W: the third operand of a Gemm, a constant of an addition that follows, or the bias
 * that a fused skip normalisation adds. A layer without a bias can be given one of zeros, which changes no result.
 * Compensation by a bias then only changes the contents of a constant.
 */
public final class OutputBiases {
    private final Structure structure;
    private final LinearLayers consumers;

    /** Prepares the search for biases in a model. */
    public OutputBiases(Structure structure) {
        this.structure = structure;
        this.consumers = LinearLayers.of(structure);
    }

    /**
     * The model of {@code structure} in which each of the given linear layers has its own bias: zeros when there is
     * none, a copy when the constant has other uses. The model itself when all have one.
     */
    public static Model complete(Structure structure, Collection<LinearLayer> layers) {
        OutputBiases biases = new OutputBiases(structure);
        List<LinearLayer> missing =
                layers.stream().filter(layer -> biases.of(layer).isEmpty()).toList();
        Model model = structure.analysis().program().model();
        if (missing.isEmpty()) {
            return model;
        }
        GraphEditor editor = new GraphEditor(model);
        missing.forEach(layer -> biases.addBias(layer, editor));
        return editor.apply(Map.of());
    }

    /**
     * The bias of a linear layer, when the constant has no other use.
     *
     * @return the constants that hold it: one, or one for each branch of an If that has the layer; empty when any of
     *     these has none
     */
    public List<Value> of(LinearLayer consumer) {
        Set<Use> uses = new HashSet<>();
        Set<Value> found = new LinkedHashSet<>();
        for (Op linear : consumers.applications(consumer)) {
            Use use = biasUse(linear, consumer.outputs());
            if (use == null) {
                return List.of();
            }
            uses.add(use);
            found.add(use.op().input(use.input()));
        }
        boolean isExclusive = found.stream().allMatch(value -> uses.containsAll(value.uses()));
        return isExclusive ? List.copyOf(found) : List.of();
    }

    /** The use of the bias of a linear layer with {@code width} outputs; null when nothing is added to the output. */
    private Use biasUse(Op linear, int width) {
        if (linear.node().is("Gemm") && linear.input(2) != null) {
            boolean plain = linear.node().floatAttribute("beta", 1) == 1 && isVector(linear.input(2), width);
            return plain ? new Use(linear, 2) : null;
        }
        Value value = linear.output(0);
        while (value.uses().size() == 1
                && !structure.analysis().program().outputs().contains(value)) {
            Op next = value.uses().get(0).op();
            int operand = value.uses().get(0).input();
            if (next.node().is("Add") && isVector(next.input(1 - operand), width)) {
                return new Use(next, 1 - operand);
            }
            if (ResidualStream.isSkipNormalization(next) && operand < 2) {
                int bias = next.node().is("SkipLayerNormalization") ? 4 : 3;
                return isVector(next.input(bias), width) ? new Use(next, bias) : null;
            }
            if (!passes(next, operand, width)) {
                return null;
            }
            value = next.output(0);
        }
        return null;
    }

    /** Whether an operator passes vectors of {@code width} elements on, possibly in another precision. */
    private boolean passes(Op op, int operand, int width) {
        if (op.node().is("Identity") || op.node().is("Cast")) {
            return structure.analysis().trace().dtype(op.output(0)).isFloat();
        }
        Trace trace = structure.analysis().trace();
        long[] shape = op.node().is("Reshape") && operand == 0 ? trace.shape(op.output(0), 0) : null;
        long[] other = shape == null ? null : trace.shape(op.output(0), 1);
        return other != null
                && shape.length > 0
                && other.length > 0
                && shape[shape.length - 1] == width
                && other[other.length - 1] == width;
    }

    private static boolean isVector(Value value, int width) {
        Tensor tensor = value == null ? null : value.constant();
        return tensor != null
                && tensor.dtype().isFloat()
                && tensor.rank() > 0
                && tensor.elements() == width
                && tensor.dim(tensor.rank() - 1) == width;
    }

    private void addBias(LinearLayer consumer, GraphEditor editor) {
        String zeros = null;
        for (Op linear : consumers.applications(consumer)) {
            Use use = biasUse(linear, consumer.outputs());
            if (use != null) {
                Value shared = use.op().input(use.input());
                String copy = editor.addInitializer(shared.name() + "_own", shared.constant());
                editor.setInput(use.op().node(), use.input(), copy);
                continue;
            }
            if (zeros == null) {
                zeros = editor.addInitializer(consumer.weight().name() + "_bias", zeros(linear, consumer.outputs()));
            }
            add(linear, zeros, editor);
        }
    }

    private static Tensor zeros(Op linear, int width) {
        return Tensor.ofFloats(AdapterInputs.elementType(linear), new long[] {width}, new float[width]);
    }

    private static void add(Op linear, String bias, GraphEditor editor) {
        Node node = editor.current(linear.node());
        if (node.is("Gemm") && node.input(2).isEmpty()) {
            editor.setInput(linear.node(), 2, bias);
            return;
        }
        String result = editor.renameOutput(linear.node(), "_product");
        String inner = editor.current(linear.node()).output(0);
        editor.insertAfter(
                linear.node(),
                Node.of(editor.freshName(result + "_add"), "Add", List.of(inner, bias), List.of(result), Map.of()));
    }
}
