// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.passes;

import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Model;
import io.onnxprune.option.Named;
import io.onnxprune.pass.Fact;
import io.onnxprune.pass.Pass;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.pass.PruningState.Output;
import io.onnxprune.pass.RunSettings;
import io.onnxprune.plan.Plan;
import io.onnxprune.rewrite.BlockRemover;
import io.onnxprune.rewrite.PrunedState;
import io.onnxprune.rewrite.Slicer;
import io.onnxprune.runtime.LastPosition;
import java.util.Optional;
import java.util.Set;

/** Makes the pruned model: tensors are sliced, and layers and blocks that the plan prunes are taken out. */
@Named(value = "rewrite", summary = "Makes the pruned model: slices tensors, and takes out layers and blocks.")
public record RewritePass() implements Pass {
    @Override
    public Set<Fact> provides() {
        return Set.of(Fact.REWRITTEN);
    }

    @Override
    public PruningState run(PruningState state, PassContext context) {
        PrunedState pruned = state.pruned();
        Model model = pruned.isDense() ? state.dense().imported() : sliced(pruned);
        boolean last = context.settings()
                .output()
                .filter(RunSettings.Output::lastLogits)
                .isPresent();
        return state.withOutput(new Output(Optional.of(last ? LastPosition.added(model) : model), Optional.empty()));
    }

    private static Model sliced(PrunedState pruned) {
        Structure structure = pruned.structure();
        Plan plan = pruned.plan();
        return BlockRemover.remove(structure, plan, Slicer.slice(structure, plan.keep(structure), pruned.updates()));
    }
}
