// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.passes;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.compensate.BasisWeights;
import io.onnxprune.compensate.PrincipalBasis;
import io.onnxprune.diag.Fingerprint;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Model;
import io.onnxprune.measure.AnalysedModel;
import io.onnxprune.pass.DenseModel;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.pass.ReportEntry;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.rewrite.NormFolding;
import io.onnxprune.rewrite.OutputBiases;
import io.onnxprune.rewrite.StreamRotation;
import java.util.List;
import java.util.Locale;

/** Gives the residual stream the basis of its principal components. The result is another dense model that computes the same. */
final class StreamToComponents {
    /** Largest difference of losses: weights in half precision are rounded to 2⁻¹¹ of their size. */
    private static final double TOLERANCE = 1e-2;

    private StreamToComponents() {}

    /** The rotated state. */
    static PruningState run(PruningState state, boolean loss, PassContext context) {
        DenseModel dense = state.dense();
        Structure completed =
                analysed(OutputBiases.complete(dense.structure(), StreamRotation.biased(dense.structure())), context);
        Structure folded = analysed(NormFolding.of(completed, new BasisWeights(context.workFolder(), null)), context);
        try (Matrix basis = basis(folded, loss, context)) {
            Model rotated = StreamRotation.rotated(folded, new BasisWeights(context.workFolder(), basis));
            requireSameLoss(dense.structure().analysis().program().model(), rotated, context);
            int width = basis.rows();
            // Plans name channels of this basis, so they fit no run without it.
            String hash = Fingerprint.of(
                    List.of(dense.hash(), "rotated", loss), context.statistics().rows());
            Structure structure = analysed(rotated, context);
            return state.withDense(new DenseModel(
                            dense.imported(),
                            structure,
                            LinearLayers.of(structure),
                            dense.given(),
                            hash,
                            dense.timing()))
                    .with(ReportEntry.of(
                            "rotated",
                            "the residual stream has the basis of its " + width + " principal components",
                            width));
        }
    }

    /** Compares the models on one row: rounding alone may make a difference. */
    private static void requireSameLoss(Model before, Model after, PassContext context) {
        double expected = loss(before, context);
        double found = loss(after, context);
        if (!(Math.abs(found - expected) <= TOLERANCE * Math.max(1, Math.abs(expected)))) {
            throw new UserException(String.format(
                    Locale.ROOT,
                    "the rotated model has a loss of %.5g where the dense one has %.5g; nothing was written, please report this"
                            + " model",
                    found,
                    expected));
        }
    }

    private static double loss(Model model, PassContext context) {
        return PrincipalBasis.loss(
                context.statistics().calibrator(model),
                context.statistics().rows().get(0));
    }

    private static Structure analysed(Model model, PassContext context) {
        return AnalysedModel.of(model, context.runtime(), Log.NONE).structure();
    }

    private static Matrix basis(Structure folded, boolean loss, PassContext context) {
        return PrincipalBasis.of(
                context.statistics().calibrator(folded.analysis().program().model()),
                context.statistics().rows(),
                StreamRotation.readers(folded),
                loss);
    }
}
