// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.passes;

import io.onnxprune.compensate.ResidualRefit;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.option.Named;
import io.onnxprune.option.Option;
import io.onnxprune.pass.Cost;
import io.onnxprune.pass.CostModel;
import io.onnxprune.pass.DenseModel;
import io.onnxprune.pass.Fact;
import io.onnxprune.pass.Pass;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.plan.LinearLayer;
import java.util.Collection;
import java.util.Map;
import java.util.Set;

/** Brings the residual stream of the pruned model near to that of the dense one. */
@Named(
        value = "refit",
        summary =
                "Changes the linear layers that end residual blocks so that the residual stream of the pruned model comes as near to"
                        + " that of the dense one as it can.")
public record RefitPass(
        @Option("Added to the diagonal of XᵀX, as a share of its mean.")
        double ridge,

        @Option("Biases change too; a pass add-biases must come before.")
        boolean bias)
        implements Pass {
    /** Weights alone. */
    public RefitPass() {
        this(1e-3, false);
    }

    @Override
    public Set<Fact> requires() {
        return bias ? Set.of(Fact.ROWS, Fact.PLAN, Fact.BIASES) : Set.of(Fact.ROWS, Fact.PLAN);
    }

    @Override
    public Effect effect() {
        return Effect.CHANGES_MODEL;
    }

    @Override
    public boolean solves() {
        return true;
    }

    @Override
    public Collection<LinearLayer> changesBiasesOf(DenseModel dense, Collection<LinearLayer> shrinking) {
        return bias ? ResidualRefit.layers(dense.structure(), dense.layers()) : Set.of();
    }

    @Override
    public Cost cost(CostModel model) {
        return model.forward()
                .times(2)
                .then(model.inputMoments())
                .then(model.errorMoments())
                .then(model.solving());
    }

    @Override
    public PruningState run(PruningState state, PassContext context) {
        if (state.prunesNothing()) {
            return state;
        }
        ResidualRefit editor = new ResidualRefit(
                state.pruned(), state.dense().layers(), ridge, bias, context.workFolder(), context.log());
        context.statistics().sweep(state.pruned(), true, editor);
        Map<Value, Tensor> changed = editor.updates();
        return state.withWeights(changed)
                .withLayers(
                        "refitted",
                        changed.keySet(),
                        layers -> "the weights of " + layers
                                + " linear layers bring the residual stream near to that of the dense model");
    }
}
