// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.passes;

import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
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
import io.onnxprune.pass.Scheduled;
import io.onnxprune.plan.LinearLayer;
import java.util.Collection;
import java.util.EnumSet;
import java.util.Map;
import java.util.Set;

/** Changes the kept weights so that they compensate for what the plan prunes. */
@Named(
        value = "compensate",
        summary =
                "Changes the kept weights so that they compensate for pruned units, block by block on the outputs of the pruned"
                        + " blocks before.")
public record CompensatePass(@Option("How weights change.") WeightUpdate update) implements Pass {
    /** The key of the report. */
    static final String KEY = "compensated";

    /** Least squares. */
    public CompensatePass() {
        this(new LeastSquaresUpdate());
    }

    static String sentence(int layers) {
        return "the weights of " + layers + " linear layers compensate for pruned units";
    }

    static Set<Fact> requirements(WeightUpdate update, boolean rows) {
        Set<Fact> facts = EnumSet.of(Fact.CHOICE);
        if (rows || update.changesWeights()) {
            facts.add(Fact.ROWS);
        }
        if (update.changesBiases()) {
            facts.add(Fact.BIASES);
        }
        return facts;
    }

    @Override
    public Set<Fact> requires() {
        return requirements(update, false);
    }

    @Override
    public Effect effect() {
        return Effect.CHANGES_MODEL;
    }

    @Override
    public boolean solves() {
        return update.changesWeights();
    }

    @Override
    public Moments moments() {
        return update.moments();
    }

    @Override
    public boolean differentiates() {
        return update.differentiates();
    }

    @Override
    public Collection<LinearLayer> changesBiasesOf(DenseModel dense, Collection<LinearLayer> shrinking) {
        return update.changesBiases() ? shrinking : Set.of();
    }

    /** The same in any step: what changes from step to step is the state. */
    @Override
    public Object work(Scheduled here, DenseModel dense) {
        return this;
    }

    @Override
    public Cost cost(CostModel model) {
        return update.cost(model);
    }

    @Override
    public PruningState run(PruningState state, PassContext context) {
        if (state.prunesNothing() || !update.changesWeights()) {
            return state.settled();
        }
        Map<Value, Tensor> changed = update.update(state, context);
        return state.withWeights(changed).withLayers(KEY, changed.keySet(), CompensatePass::sentence);
    }
}
