// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.method;

import io.onnxprune.option.Named;
import io.onnxprune.option.Option;
import io.onnxprune.pass.Cost;
import io.onnxprune.pass.CostModel;
import io.onnxprune.pass.DenseModel;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.plan.ExpertImportance;
import io.onnxprune.plan.ExpertImportance.Kind;
import io.onnxprune.plan.Scores;
import io.onnxprune.rewrite.PrunedState;

/** What experts contribute to the tokens that are routed to them (REAP, arXiv 2510.13999). */
@Named(value = "reap", summary = "what experts contribute to the tokens that are routed to them")
public record ReapMetric(
        @Option(
                "g is the gate of an expert for a token that is routed to it, f its output and L the loss: the mean of g·‖f‖ over"
                        + " these tokens, or the sum of abs(g·∂L/∂g) or of its square, or the KL divergence of the model without"
                        + " the expert, from one run of the model for each expert.")
        Kind contribution)
        implements ImportanceMetric {
    /** The mean of gates times outputs. */
    public ReapMetric() {
        this(Kind.OUTPUT);
    }

    @Override
    public boolean needsRows() {
        return true;
    }

    @Override
    public boolean differentiates() {
        return contribution == Kind.CHANGE || contribution == Kind.FISHER;
    }

    @Override
    public void check(DenseModel dense, PassContext context) {
        ExpertImportance.require(context.prune());
        if (contribution == Kind.DIVERGENCE) {
            return;
        }
        context.statistics()
                .requireContributions(
                        PrunedState.whole(dense.structure(), dense.keepAll()),
                        ExpertImportance.experts(dense.structure()));
    }

    @Override
    public Cost cost(CostModel model) {
        if (contribution == Kind.DIVERGENCE) {
            return model.divergences();
        }
        return differentiates() ? model.activationGradients() : model.forward();
    }

    @Override
    public Scores score(PruningState state, PassContext context) {
        return new ExpertImportance(contribution, context.statistics().contributions(state.pruned()))
                .score(state.dense().structure(), context.log());
    }
}
