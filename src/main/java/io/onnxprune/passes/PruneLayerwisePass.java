// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.passes;

import io.onnxprune.compensate.LayerwisePruning;
import io.onnxprune.compensate.ObsSelection;
import io.onnxprune.compensate.Selection;
import io.onnxprune.diag.UsageException;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.method.LayerwiseUpdates;
import io.onnxprune.method.LeastSquaresUpdate;
import io.onnxprune.method.WeightUpdate;
import io.onnxprune.option.Named;
import io.onnxprune.option.Option;
import io.onnxprune.pass.Cost;
import io.onnxprune.pass.CostModel;
import io.onnxprune.pass.DenseModel;
import io.onnxprune.pass.Fact;
import io.onnxprune.pass.Pass;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.LinearLayer;
import java.util.Collection;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/** Chooses units layer by layer and compensates for them before the next layer is measured (SlimGPT, arXiv 2412.18110). */
@Named(
        value = "prune-layerwise",
        summary =
                "Chooses units block by block, on the outputs of the pruned blocks before, and compensates for them at once. The plan"
                        + " says only how many units of each dimension to prune.")
public record PruneLayerwisePass(
        @Option("How units are chosen.") Selection select,
        @Option("How weights change.") WeightUpdate update) implements Pass {
    /** Optimal brain surgeon. */
    public PruneLayerwisePass() {
        this(new ObsSelection(), new LeastSquaresUpdate());
    }

    public PruneLayerwisePass {
        if (!update.isLayerwise()) {
            throw new UsageException("update " + update.partName()
                    + " is measured once and not block by block, so prune-layerwise cannot use it; compensate can");
        }
    }

    @Override
    public Set<Fact> requires() {
        return CompensatePass.requirements(update, true);
    }

    @Override
    public Effect effect() {
        return Effect.CHANGES_MODEL;
    }

    @Override
    public boolean solves() {
        return true;
    }

    /** A layer-by-layer run must know the share of each layer before it reaches it. */
    @Override
    public Budget restrict(Budget budget, DenseModel dense, PassContext context) {
        if (budget.scope() == Budget.Scope.GLOBAL) {
            throw new UsageException("recipe " + context.settings().method()
                    + " prunes block by block, so every layer must know its share"
                    + " before: scope global has no effect; ask for scope local");
        }
        return dense.layers()
                .restrict(budget, dense.structure(), false, context.settings().method(), context.log());
    }

    @Override
    public Collection<LinearLayer> changesBiasesOf(DenseModel dense, Collection<LinearLayer> shrinking) {
        return update.changesBiases() ? shrinking : Set.of();
    }

    @Override
    public Cost cost(CostModel model) {
        Cost measured = model.forward().then(model.inputMoments()).then(model.removal());
        return update.changesWeights() ? measured.then(model.solving()) : measured;
    }

    @Override
    public PruningState run(PruningState state, PassContext context) {
        if (state.prunesNothing()) {
            return state.settled();
        }
        LayerwisePruning pruning = LayerwiseUpdates.run(
                state, new LayerwisePruning.Method(Optional.of(select), update.layerwise()), context);
        Map<Value, Tensor> changed = pruning.updates();
        PruningState next = state.withModel(pruning.plan(), changed);
        return update.changesWeights()
                ? next.withLayers(CompensatePass.KEY, changed.keySet(), CompensatePass::sentence)
                : next;
    }
}
