// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.passes;

import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dimension;
import io.onnxprune.ir.Model;
import io.onnxprune.measure.AnalysedModel;
import io.onnxprune.option.Named;
import io.onnxprune.pass.DenseModel;
import io.onnxprune.pass.Fact;
import io.onnxprune.pass.Pass;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.rewrite.OutputBiases;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;

/** Gives a bias of zeros to linear layers whose biases later passes change. */
@Named(
        value = "add-biases",
        summary =
                "Gives a bias of zeros to the linear layers whose biases later passes change; these count against the target.")
public record AddBiasesPass() implements Pass {
    @Override
    public Set<Fact> provides() {
        return Set.of(Fact.BIASES);
    }

    @Override
    public boolean isRepeatedOnResume() {
        return true;
    }

    @Override
    public PruningState run(PruningState state, PassContext context) {
        DenseModel dense = state.dense();
        Set<LinearLayer> layers = new LinkedHashSet<>();
        List<LinearLayer> shrinking = context.position().later().stream()
                .filter(DecidingPass.class::isInstance)
                .map(DecidingPass.class::cast)
                .flatMap(pass -> pass.shrinking(dense, context).stream())
                .flatMap((Dimension dimension) -> dense.layers().of(dimension).stream())
                .distinct()
                .toList();
        // Refits come first: their layers are in order of execution.
        context.position().later().stream()
                .sorted((a, b) -> Boolean.compare(a instanceof RefitPass, b instanceof RefitPass) * -1)
                .forEach(pass -> layers.addAll(pass.changesBiasesOf(dense, shrinking)));
        Model completed = OutputBiases.complete(dense.structure(), layers);
        return state.withDense(dense.withStructure(
                AnalysedModel.of(completed, context.runtime(), Log.NONE).structure()));
    }
}
