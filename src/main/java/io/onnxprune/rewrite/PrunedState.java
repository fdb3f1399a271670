// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.rewrite;

import io.onnxprune.dims.Structure;
import io.onnxprune.ir.GraphChecker;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.ParameterCount;
import io.onnxprune.plan.Plan;
import io.onnxprune.rewrite.Slicer.Slice;
import io.onnxprune.rewrite.Slicer.Sliced;
import java.util.Map;
import java.util.Set;

/**
 * A pruned model in terms of the dense one: the plan, the weights that changed, and the smaller model that both make, in
 * memory. The smaller model is made when it is first asked for. An object never changes.
 */
public final class PrunedState {
    private final Structure structure;
    private final Plan plan;
    private final Map<Value, Tensor> updates;
    /** Null until it is asked for. */
    private Sliced smaller;

    private PrunedState(Structure structure, Plan plan, Map<Value, Tensor> updates, Sliced smaller) {
        this.structure = structure;
        this.plan = plan;
        this.updates = updates;
        this.smaller = smaller;
    }

    /** The dense model, of which {@code plan} keeps everything. */
    public static PrunedState whole(Structure structure, Plan plan) {
        return new PrunedState(
                structure,
                plan,
                Map.of(),
                new Sliced(structure.analysis().program().model(), Map.of()));
    }

    /**
     * The dense model pruned by {@code plan}.
     *
     * @param updates full-size contents of constants of the dense model, where they change
     */
    public static PrunedState of(Structure structure, Plan plan, Map<Value, Tensor> updates) {
        return plan.removesNothing(structure) && updates.isEmpty()
                ? whole(structure, plan)
                : new PrunedState(structure, plan, updates, null);
    }

    /** The pruned model of which another part of the program knows how it was sliced. */
    public static PrunedState of(Structure structure, Plan plan, Sliced smaller) {
        return new PrunedState(structure, plan, Map.of(), smaller);
    }

    /** The structure of the dense model. */
    public Structure structure() {
        return structure;
    }

    public Plan plan() {
        return plan;
    }

    /** Full-size contents of constants of the dense model, where they change. */
    public Map<Value, Tensor> updates() {
        return updates;
    }

    /** Whether the plan keeps everything and no weight changed. */
    public boolean isDense() {
        return plan.removesNothing(structure) && updates.isEmpty();
    }

    /** The names of the dimensions that have gone with layers or blocks. */
    public Set<String> goneDimensions() {
        boolean depth = plan.layers() != null || plan.blocks() != null;
        return depth ? ParameterCount.of(structure).removedDimensions(plan) : Set.of();
    }

    /** The pruned model. */
    public Model model() {
        return smaller().model();
    }

    /** Where constants of the pruned model come from, by name, if they are not the dense model's. */
    public Map<String, Slice> slices() {
        return smaller().slices();
    }

    private synchronized Sliced smaller() {
        if (smaller == null) {
            Sliced sliced = Slicer.trace(structure, plan.keep(structure), updates);
            Model model = BlockRemover.remove(structure, plan, sliced.model());
            GraphChecker.check(model, "slice");
            smaller = new Sliced(model, sliced.slices());
        }
        return smaller;
    }
}
