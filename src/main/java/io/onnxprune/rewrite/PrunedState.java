// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.rewrite;

import io.onnxprune.dims.Structure;
import io.onnxprune.ir.GraphChecker;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.Plan;
import io.onnxprune.rewrite.Slicer.Slice;
import io.onnxprune.rewrite.Slicer.Sliced;
import java.util.Map;

/**
 * The state of a method that prunes in steps: a plan in terms of the original model, and the pruned model in memory.
 *
 * @param structure structure of the original model
 * @param plan the plan so far
 * @param updates full-size replacements for weights of the original model
 * @param model the pruned model
 * @param slices by name, the origin of those constants of the pruned model that differ from the original's
 */
public record PrunedState(
        Structure structure, Plan plan, Map<Value, Tensor> updates, Model model, Map<String, Slice> slices) {
    /** The state before pruning: the original model. */
    public static PrunedState whole(Structure structure, Plan plan) {
        return new PrunedState(
                structure, plan, Map.of(), structure.analysis().program().model(), Map.of());
    }

    /**
     * The state after pruning by {@code plan}: the original model is sliced with {@code updates}, and its removed
     * blocks are dropped.
     */
    public static PrunedState of(Structure structure, Plan plan, Map<Value, Tensor> updates) {
        if (plan.removesNothing(structure) && updates.isEmpty()) {
            return whole(structure, plan);
        }
        Sliced sliced = Slicer.trace(structure, plan.keep(structure), updates);
        Model model = BlockRemover.remove(structure, plan, sliced.model());
        GraphChecker.check(model, "step");
        return new PrunedState(structure, plan, updates, model, sliced.slices());
    }
}
