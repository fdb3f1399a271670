// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.method;

import io.onnxprune.pass.DenseModel;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.plan.ActivationImportance;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.Scores;

/** Scores from weights and activations of the consumers of a unit, in one forward pass. */
interface ActivationMetric extends ImportanceMetric {
    /** The score of a channel. */
    ActivationImportance.Kind kind();

    @Override
    default boolean needsRows() {
        return true;
    }

    @Override
    default Budget restrict(Budget budget, DenseModel dense, PassContext context) {
        return dense.layers()
                .restrict(budget, dense.structure(), false, context.settings().method(), context.log());
    }

    @Override
    default Scores score(PruningState state, PassContext context) {
        return new ActivationImportance(
                        kind(), context.prune(), context.statistics().inputs(state.pruned()))
                .score(state.dense().structure(), context.log());
    }
}
