// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.pass;

import io.onnxprune.option.Part;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.plan.PruneSet;
import java.util.Collection;
import java.util.List;
import java.util.Optional;
import java.util.Set;

/**
 * A step of a recipe: it takes the state that the passes before it have reached and returns the next one. A pass is a record of
 * its options and keeps nothing between runs. Order, requirements, checks of the graph, dumps, times, progress, checkpoints and
 * the report are the business of the {@link PassManager}.
 */
public interface Pass extends Part {
    /** What a pass does to the weights of the pruned model. */
    enum Effect {
        /** It only looks, or decides. */
        NONE,
        /** It changes weights or the plan, so scores, a rewritten model and an emitted file of before are out of date. */
        CHANGES_MODEL
    }

    /** Which second moments of the state that it is given a pass measures, if it measures nothing else. */
    enum Moments {
        /** It measures something else, or nothing. */
        NONE,
        /** XᵀX of linear layers. */
        INPUTS,
        /** Also DᵀD of their gradients. */
        FISHER
    }

    /** What earlier passes must have provided. */
    default Set<Fact> requires() {
        return Set.of();
    }

    /** What later passes can rely on. */
    default Set<Fact> provides() {
        return Set.of();
    }

    /** What the pass does to the weights of the pruned model. */
    default Effect effect() {
        return Effect.NONE;
    }

    /**
     * Whether a resumed run must run this pass again although it was done, because what it provides is not in a checkpoint. Such
     * a pass is deterministic.
     */
    default boolean isRepeatedOnResume() {
        return false;
    }

    /** The structures that this pass decides about; empty for a pass that decides nothing. */
    default Optional<PruneSet> prunes() {
        return Optional.empty();
    }

    /**
     * Narrows the budget of the passes that allocate to what this pass can handle.
     *
     * @throws io.onnxprune.diag.UserException if nothing that the budget names is left
     */
    default Budget restrict(Budget budget, DenseModel dense, PassContext context) {
        return budget;
    }

    /**
     * The linear layers whose biases this pass changes, each of which must have one.
     *
     * @param shrinking the layers that sum over a dimension that may shrink
     */
    default Collection<LinearLayer> changesBiasesOf(DenseModel dense, Collection<LinearLayer> shrinking) {
        return Set.of();
    }

    /** Whether this pass solves systems of equations from second moments, for which few tokens are too few. */
    default boolean solves() {
        return false;
    }

    /** What this pass measures, if that is nothing but second moments of the state that it is given. */
    default Moments moments() {
        return Moments.NONE;
    }

    /** The share of the calibration rows that no pass may solve for, because this one compares models on them. */
    default double setAside() {
        return 0;
    }

    /** Whether this pass computes gradients. */
    default boolean differentiates() {
        return moments() == Moments.FISHER;
    }

    /** The work of this pass, in the model's own numbers. */
    default Cost cost(CostModel model) {
        return Cost.NONE;
    }

    /**
     * What the result depends on beside the model, the rows, the seed and the state that the pass is given, and beside the passes of
     * the recipe: two runs of one recipe in which this is equal come to the same result. By default the options and the step.
     */
    default Object work(Scheduled here, DenseModel dense) {
        return List.of(this, here.step(), here.steps());
    }

    /**
     * Refuses what cannot work, before any pass runs and before data are read.
     *
     * @throws io.onnxprune.diag.UserException with the reason
     */
    default void check(DenseModel dense, PassContext context) {}

    /**
     * Does the work of this pass.
     *
     * @throws io.onnxprune.diag.UserException if it cannot be done
     */
    PruningState run(PruningState state, PassContext context);
}
