// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Structure;
import java.util.List;

/**
 * A plan that meets a budget.
 *
 * @param plan the kept units, layers and blocks
 * @param before size of the dense model, counted in the currency of the budget
 * @param after size of the pruned model, counted so too
 */
public record Allocation(Plan plan, ParameterCount.Size before, ParameterCount.Size after) {
    /**
     * Chooses the least important units, layers and blocks to prune. The size of the pruned model differs from the
     * budget's target by at most one unit of the smallest kind that may be pruned. Where the target is a limit, it is not above.
     *
     * @param model hash of the model, for the plan
     * @throws io.onnxprune.diag.UserException if the target cannot be reached, or a requested role has nothing to
     *     prune
     */
    public static Allocation of(Structure structure, Scores scores, Budget budget, String model, Log log) {
        return new Allocator(structure, scores, budget, log).run(model);
    }

    /**
     * Rejects a budget that no scores could meet, before scores are measured. If layers or blocks may be pruned, this
     * depends on the scores, and only {@link #of} checks it.
     *
     * @throws io.onnxprune.diag.UserException as {@link #of}
     */
    public static void check(Structure structure, Budget budget) {
        if (!budget.prune().layers() && !budget.prune().blocks()) {
            Scores any = new RandomImportance(0).score(structure, Log.NONE);
            Allocator allocator = new Allocator(structure, any, budget, Log.NONE);
            allocator.requireStep(allocator.candidates());
        }
    }

    /**
     * Checks that the model is smaller than before. A run that asks for more than nothing should not write the model as
     * it is.
     *
     * @throws io.onnxprune.diag.UserException with the smallest step that the budget allows, if nothing was pruned
     *     because it asks for less
     */
    public void requireSmaller(Structure structure, Scores scores, Budget budget) {
        if (after.equals(before)) {
            Allocator allocator = new Allocator(structure, scores, budget, Log.NONE);
            allocator.requireStep(allocator.candidates());
        }
    }

    /** The plan that keeps least of what a budget allows to prune, whatever its target. */
    public static Plan smallest(Structure structure, Budget budget, String model) {
        Scores any = new RandomImportance(0).score(structure, Log.NONE);
        return new Allocator(structure, any, budget, Log.NONE).smallest(model);
    }

    /**
     * The share of the parameters that a budget comes to, whatever its currency, where units are worth the same.
     *
     * @throws io.onnxprune.diag.UserException if the target cannot be reached
     */
    public static double parameterShare(Structure structure, Budget budget) {
        Scores any = new RandomImportance(0).score(structure, Log.NONE);
        return new Allocator(structure, any, budget, Log.NONE).run("").ratio();
    }

    /** The dimensions that a budget allows to prune. */
    public static List<Dimension> candidates(Structure structure, Budget budget) {
        return new Candidates(structure, budget, ParameterCount.of(structure), Log.NONE)
                .groups().stream().flatMap(List::stream).toList();
    }

    /** The pruned share of the model's parameters. */
    public double ratio() {
        return before.parameters() == 0 ? 0 : 1 - (double) after.parameters() / before.parameters();
    }
}
