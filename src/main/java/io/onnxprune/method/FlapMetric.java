// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.method;

import io.onnxprune.option.Named;
import io.onnxprune.pass.DenseModel;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.plan.ActivationImportance;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.Scores;

/** Weights times the fluctuation of inputs (FLAP, arXiv 2312.11983). */
@Named(
        value = "flap",
        summary = "weights times the fluctuation of the inputs of the linear layers that sum over a unit")
public record FlapMetric() implements ImportanceMetric {
    @Override
    public boolean needsRows() {
        return true;
    }

    @Override
    public Budget restrict(Budget budget, DenseModel dense, PassContext context) {
        return dense.layers()
                .restrict(budget, dense.structure(), false, context.settings().method(), context.log());
    }

    @Override
    public Scores score(PruningState state, PassContext context) {
        return new ActivationImportance(
                        ActivationImportance.Kind.FLAP,
                        context.prune(),
                        context.statistics().inputs(state.pruned()))
                .score(state.dense().structure(), context.log());
    }
}
