// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.method;

import io.onnxprune.compensate.ObsImportance;
import io.onnxprune.compensate.ObsImportance.Curvature;
import io.onnxprune.compensate.ObsImportance.Members;
import io.onnxprune.compensate.ObsSelection;
import io.onnxprune.diag.UsageException;
import io.onnxprune.option.Named;
import io.onnxprune.option.Option;
import io.onnxprune.pass.Cost;
import io.onnxprune.pass.CostModel;
import io.onnxprune.pass.DenseModel;
import io.onnxprune.pass.Pass;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.Scores;

/** The loss when the kept weights compensate (optimal brain surgeon; The LLM Surgeon, arXiv 2312.17244). */
@Named(value = "obs", summary = "the loss when the kept weights compensate")
public record ObsMetric(
        @Option("The cost of an error: its square at the output of the linear layer, or its effect on the loss.")
        Curvature curvature,

        ObsSelection selection,

        @Option(
                "For curvature loss: the linear layers that sum over a unit, or also those that produce it, whose costs are"
                        + " added.")
        Members members)
        implements ImportanceMetric {
    /** Errors as they are, of the consumers. */
    public ObsMetric() {
        this(Curvature.OUTPUT, new ObsSelection(), Members.CONSUMERS);
    }

    public ObsMetric {
        if (members == Members.ALL && curvature != Curvature.LOSS) {
            throw new UsageException(
                    "members all needs curvature loss: the costs of producers are measured by gradients");
        }
    }

    private boolean ofLoss() {
        return curvature == Curvature.LOSS;
    }

    @Override
    public boolean needsRows() {
        return true;
    }

    @Override
    public boolean solves() {
        return true;
    }

    @Override
    public Pass.Moments moments() {
        return ofLoss() ? Pass.Moments.FISHER : Pass.Moments.INPUTS;
    }

    @Override
    public Budget restrict(Budget budget, DenseModel dense, PassContext context) {
        return dense.layers()
                .restrict(
                        budget, dense.structure(), ofLoss(), context.settings().method(), context.log());
    }

    @Override
    public Cost cost(CostModel model) {
        Cost measured = ofLoss() ? model.activationGradients().then(model.gradientMoments()) : model.forward();
        return measured.then(model.inputMoments()).then(model.removal());
    }

    @Override
    public Scores score(PruningState state, PassContext context) {
        return new ObsImportance(
                        MeasuredStates.of(state.pruned(), state, context),
                        context.prune(),
                        new ObsImportance.Settings(curvature, members, selection))
                .score(state.dense().structure(), context.log());
    }
}
