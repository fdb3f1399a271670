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
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.plan.LinearLayer;
import java.util.Collection;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * The vectors that are added to products X·W: the third operand of a Gemm, a constant of an addition that follows, or
 * the bias that a fused skip normalisation adds. A product without one can be given a vector of zeros, which changes no
 * result; with that the model is an ordinary one, and what compensates by a bias changes contents only.
 */
public final class OutputBiases {
    private final Structure structure;
    private final LinearLayers consumers;

    /** Finds the biases of the products of a model. */
    public OutputBiases(Structure structure) {
        this.structure = structure;
        this.consumers = LinearLayers.of(structure);
    }

    /**
     * The model of {@code structure} in which each of {@code products} has a bias of its own: zeros where there is none,
     * a copy where other places read the same constant. The model itself if all have one already.
     */
    public static Model complete(Structure structure, Collection<LinearLayer> products) {
        OutputBiases biases = new OutputBiases(structure);
        List<LinearLayer> missing = products.stream()
                .filter(product -> biases.of(product).isEmpty())
                .toList();
        Model model = structure.analysis().program().model();
        if (missing.isEmpty()) {
            return model;
        }
        GraphEditor editor = new GraphEditor(model);
        missing.forEach(product -> biases.give(product, editor));
        return editor.apply(Map.of());
    }

    /**
     * The bias of a product, which nothing else reads.
     *
     * @return the constants that hold it: one, but for a product that several branches of an If have, each with its own;
     *     none if there is none in at least one place
     */
    public List<Value> of(LinearLayer consumer) {
        Set<Use> places = new HashSet<>();
        Set<Value> found = new LinkedHashSet<>();
        for (Op product : consumers.applications(consumer)) {
            Use place = place(product, consumer.outputs());
            if (place == null) {
                return List.of();
            }
            places.add(place);
            found.add(place.op().input(place.input()));
        }
        boolean alone = found.stream().allMatch(value -> places.containsAll(value.uses()));
        return alone ? List.copyOf(found) : List.of();
    }

    /** Where the bias of a product of {@code width} outputs is read; null if nothing is added to it. */
    private Use place(Op product, int width) {
        if (product.node().is("Gemm") && product.input(2) != null) {
            boolean plain = product.node().floatAttribute("beta", 1) == 1 && isVector(product.input(2), width);
            return plain ? new Use(product, 2) : null;
        }
        Value value = product.output(0);
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

    /** Whether an application hands the vectors of {@code width} numbers on, as they are or in another precision. */
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

    private void give(LinearLayer consumer, GraphEditor editor) {
        String zeros = null;
        for (Op product : consumers.applications(consumer)) {
            Use place = place(product, consumer.outputs());
            if (place != null) {
                Value shared = place.op().input(place.input());
                String copy = editor.addInitializer(shared.name() + "_own", shared.constant());
                editor.setInput(place.op().node(), place.input(), copy);
                continue;
            }
            if (zeros == null) {
                zeros = editor.addInitializer(consumer.weight().name() + "_bias", zeros(product, consumer.outputs()));
            }
            add(product, zeros, editor);
        }
    }

    private static Tensor zeros(Op product, int width) {
        return Tensor.ofFloats(AdapterInputs.elementType(product), new long[] {width}, new float[width]);
    }

    private static void add(Op product, String bias, GraphEditor editor) {
        Node node = editor.current(product.node());
        if (node.is("Gemm") && node.input(2).isEmpty()) {
            editor.setInput(product.node(), 2, bias);
            return;
        }
        String result = editor.renameOutput(product.node(), "_product");
        String inner = editor.current(product.node()).output(0);
        editor.insertAfter(
                product.node(),
                Node.of(editor.freshName(result + "_add"), "Add", List.of(inner, bias), List.of(result), Map.of()));
    }
}
