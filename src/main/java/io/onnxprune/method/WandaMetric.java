// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.method;

import io.onnxprune.option.Named;
import io.onnxprune.pass.DenseModel;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.plan.ActivationImportance;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.Scores;

/** Weights times the size of inputs, in structured form (Wanda, arXiv 2306.11695). */
@Named(value = "wanda", summary = "weights times the size of the inputs of the linear layers that sum over a unit")
public record WandaMetric() implements ImportanceMetric {
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
                        ActivationImportance.Kind.WANDA,
                        context.prune(),
                        context.statistics().inputs(state.pruned()))
                .score(state.dense().structure(), context.log());
    }
}
