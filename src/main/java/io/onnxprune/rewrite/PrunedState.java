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
 * What a method that works in steps has reached: a plan in terms of the original model, and the smaller model that it
 * makes, in memory.
 *
 * @param structure of the original model
 * @param updates full-size replacements for weights of the original
 * @param model the smaller model
 * @param slices by name, where constants of the smaller model come from, if they are not the original's
 */
public record PrunedState(
        Structure structure, Plan plan, Map<Value, Tensor> updates, Model model, Map<String, Slice> slices) {
    /** The original model. */
    public static PrunedState whole(Structure structure, Plan plan) {
        return new PrunedState(
                structure, plan, Map.of(), structure.analysis().program().model(), Map.of());
    }

    /** The original model without what {@code plan} removes. */
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
