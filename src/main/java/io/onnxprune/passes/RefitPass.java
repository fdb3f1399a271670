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
import io.onnxprune.pass.ReportEntry;
import io.onnxprune.plan.LinearLayer;
import java.util.Collection;
import java.util.Locale;
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
        boolean bias,

        @Option(
                value =
                        "Share of the calibration rows, the last ones, on which predictions must come nearer to those of the dense"
                                + " model for the new weights to be taken; with 0 they are taken in any case.",
                below = 1)
        double setAside)
        implements Pass {
    /** Weights alone. */
    public RefitPass() {
        this(1e-3, false, 0);
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
        if (setAside > 0) {
            double before = context.statistics().divergenceAside(state.pruned());
            double after = context.statistics()
                    .divergenceAside(state.withWeights(changed).pruned());
            if (!(after < before)) {
                return state.with(ReportEntry.of(
                        "refitted",
                        String.format(
                                Locale.ROOT,
                                "the residual stream was not refitted: on rows set aside, the divergence from the dense model would be"
                                        + " %.4f nats a token instead of %.4f",
                                after,
                                before),
                        0));
            }
        }
        return state.withWeights(changed)
                .withLayers(
                        "refitted",
                        changed.keySet(),
                        layers -> "the weights of " + layers
                                + " linear layers bring the residual stream near to that of the dense model");
    }
}
