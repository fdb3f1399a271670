// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Structure;
import java.util.List;

/**
 * A plan that meets a budget.
 *
 * @param plan what stays
 * @param before the whole model
 * @param after what is left of it
 */
public record Allocation(Plan plan, ParameterCount.Size before, ParameterCount.Size after) {
    /**
     * Chooses what to remove so that the least important units go and what is left is within one unit (of the smallest
     * kind that may go) of the budget's target.
     *
     * @param model hash of the model, for the plan
     * @throws io.onnxprune.diag.UserException if the target cannot be reached, or nothing of a role that is asked for
     *     can be pruned
     */
    public static Allocation of(Structure structure, Scores scores, Budget budget, String model, Log log) {
        return new Allocator(structure, scores, budget, log).run(model);
    }

    /**
     * Refuses a budget that no scores could meet, before they are measured. Where whole layers or blocks may go, scores
     * tell which, and {@link #of} is left to judge.
     *
     * @throws io.onnxprune.diag.UserException as {@link #of}
     */
    public static void check(Structure structure, Budget budget) {
        if (!budget.prune().layers() && !budget.prune().blocks()) {
            Scores any = new RandomImportance(0).score(structure, Log.NONE);
            new Allocator(structure, any, budget, Log.NONE).candidates();
        }
    }

    /** The dimensions that may lose units under a budget. */
    public static List<Dimension> candidates(Structure structure, Budget budget) {
        return new Candidates(structure, budget, ParameterCount.of(structure), Log.NONE)
                .groups().stream().flatMap(List::stream).toList();
    }

    /** The share of the model's parameters that goes. */
    public double ratio() {
        return before.parameters() == 0 ? 0 : 1 - (double) after.parameters() / before.parameters();
    }
}
