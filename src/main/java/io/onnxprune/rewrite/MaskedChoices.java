// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.rewrite;

import io.onnxprune.dims.AnalysisFacts.Choice;
import io.onnxprune.dims.AnalysisFacts.Contraction;
import io.onnxprune.dims.AnalysisFacts.Total;
import io.onnxprune.dims.Dim;
import io.onnxprune.dims.DimensionAnalysis;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Tensor;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.stream.IntStream;

/**
 * The part of the masked model that concerns removed indices among which operators choose, such as experts: their scores
 * are the smallest of all, so that they are never chosen and have no share in a softmax, and what is summed over them
 * is zero.
 */
final class MaskedChoices {
    /** Below all scores, but finite, so that its product with zero is zero. */
    private static final float LOWEST = -1e30f;

    private static final float LOWEST_HALF = -6e4f;

    private final MaskedModel model;
    private final DimensionAnalysis analysis;
    private final Dim.Keep keep;
    private final GraphEditor editor;
    private final Set<Dim.Atom> chosen = new HashSet<>();

    MaskedChoices(MaskedModel model, DimensionAnalysis analysis, Dim.Keep keep, GraphEditor editor) {
        this.model = model;
        this.analysis = analysis;
        this.keep = keep;
        this.editor = editor;
    }

    void apply() {
        for (Choice choice : analysis.facts().choices()) {
            Dim axis = analysis.operand(choice.op(), choice.input())[choice.axis()];
            axis.atoms().stream().filter(atom -> keep.kept(atom) != null).forEach(chosen::add);
        }
        analysis.facts().choices().forEach(this::maskScores);
        for (Total total : analysis.facts().totals()) {
            zero(total.op(), total.input(), total.axes());
        }
        for (Contraction contraction : analysis.facts().contractions()) {
            for (int input = 0; input < contraction.op().inputs().size(); input++) {
                Dim[] dims = analysis.operand(contraction.op(), input);
                if (dims != null) {
                    Set<Dim.Atom> summed = contraction.dim().atoms();
                    zero(
                            contraction.op(),
                            input,
                            IntStream.range(0, dims.length)
                                    .filter(axis -> dims[axis].atoms().stream().anyMatch(summed::contains))
                                    .boxed()
                                    .toList());
                }
            }
        }
    }

    private void maskScores(Choice choice) {
        Dim[] dims = analysis.operand(choice.op(), choice.input());
        DType dtype = analysis.trace().dtype(choice.op().input(choice.input()));
        if (isRemovedFrom(dims[choice.axis()])) {
            float lowest = dtype == DType.FLOAT16 ? LOWEST_HALF : LOWEST;
            Tensor least = dtype.isFloat()
                    ? Tensor.ofFloats(dtype, new long[0], choice.largest() ? lowest : -lowest)
                    : Tensor.ofIndices(dtype, new long[0], choice.largest() ? -1 : Integer.MAX_VALUE);
            String constant = editor.addInitializer("onnx_prune_least", least);
            String scores = editor.current(choice.op().node()).input(choice.input());
            String kept = model.mask(dims, choice.axis(), DType.BOOL);
            editor.setInput(
                    choice.op().node(),
                    choice.input(),
                    model.emit(choice.op().node(), "Where", kept, scores, constant));
        }
    }

    private boolean isRemovedFrom(Dim dim) {
        return dim.atoms().stream().anyMatch(chosen::contains);
    }

    /** Makes an operand zero at the removed indices of the given axes. */
    private void zero(Op op, int input, List<Integer> axes) {
        Dim[] dims = analysis.operand(op, input);
        DType dtype = analysis.trace().dtype(op.input(input));
        for (int axis : axes) {
            if (isRemovedFrom(dims[axis]) && dtype.isFloat()) {
                String kept = model.mask(dims, axis, dtype);
                String value = editor.current(op.node()).input(input);
                editor.setInput(op.node(), input, model.emit(op.node(), "Mul", value, kept));
            }
        }
    }
}
