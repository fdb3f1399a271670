// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.method;

import io.onnxprune.option.Part;
import io.onnxprune.pass.Cost;
import io.onnxprune.pass.CostModel;
import io.onnxprune.pass.DenseModel;
import io.onnxprune.pass.Pass;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.Scores;

/** Scores units, layers and residual blocks: what is worth least is pruned first. */
public interface ImportanceMetric extends Part {
    /** Whether scores are measured on calibration rows. */
    default boolean needsRows() {
        return false;
    }

    /** Whether scores take systems of equations, for which few tokens are too few. */
    default boolean solves() {
        return false;
    }

    /** What this metric measures, if that is nothing but second moments. */
    default Pass.Moments moments() {
        return Pass.Moments.NONE;
    }

    /** Whether this metric computes gradients. */
    default boolean differentiates() {
        return moments() == Pass.Moments.FISHER;
    }

    /**
     * Narrows a budget to the dimensions that this metric can score.
     *
     * @throws io.onnxprune.diag.UserException if it can score nothing that the budget names
     */
    default Budget restrict(Budget budget, DenseModel dense, PassContext context) {
        return budget;
    }

    /**
     * Refuses what this metric cannot score, before anything is measured.
     *
     * @param context of the pass that scores; its structures are those of the pass that uses the scores
     * @throws io.onnxprune.diag.UserException with the reason
     */
    default void check(DenseModel dense, PassContext context) {}

    /** The work of one measurement. */
    default Cost cost(CostModel model) {
        return needsRows() ? model.forward() : Cost.NONE;
    }

    /**
     * Scores everything that the context's recipe may prune, in terms of the dense model.
     *
     * @return larger is worth more; only comparisons within one result mean anything
     * @throws io.onnxprune.diag.UserException if it cannot be measured, or weights are no finite numbers
     */
    Scores score(PruningState state, PassContext context);
}
