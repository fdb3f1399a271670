// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.passes;

import io.onnxprune.autodiff.NoDerivativeException;
import io.onnxprune.compensate.CorrectionObjective;
import io.onnxprune.compensate.KfacCorrection;
import io.onnxprune.compensate.KlDivergenceObjective;
import io.onnxprune.diag.UserException;
import io.onnxprune.measure.StatisticsProvider;
import io.onnxprune.method.MeasuredStates;
import io.onnxprune.option.Named;
import io.onnxprune.option.Option;
import io.onnxprune.pass.Cost;
import io.onnxprune.pass.CostModel;
import io.onnxprune.pass.Fact;
import io.onnxprune.pass.Pass;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.pass.ReportEntry;
import io.onnxprune.runtime.ModelInterface;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;

/** Changes weights by gradients so that a loss of the pruned model decreases. */
@Named(
        value = "correct",
        summary =
                "Changes weights by gradients so that a loss of the pruned model decreases, as a rule its KL divergence from the dense"
                        + " model.")
public record CorrectPass(
        @Option(value = "Number of corrections; gradients are measured anew for each.", min = 1)
        int steps,

        @Option("Added to the diagonals of XᵀX and of DᵀD, D the gradients of the linear layers, as a share of their"
                + " means.")
        double damping,

        @Option("The linear layers that sum over heads and FFN channels change, or all in residual blocks.")
        Layers layers,

        @Option("The loss that corrections reduce.") CorrectionObjective objective,

        @Option(
                value =
                        "Share of the calibration rows, the last ones, that serve the line search alone; with 0 it uses rows that"
                                + " gradients come from.",
                below = 1)
        double setAside)
        implements Pass {
    /** Which linear layers change. */
    public enum Layers {
        CONSUMERS,
        ALL
    }

    /** Three corrections of the consumers, which reduce the KL divergence from the dense model. */
    public CorrectPass() {
        this(3, 0.1, Layers.CONSUMERS, new KlDivergenceObjective(), 0);
    }

    @Override
    public Set<Fact> requires() {
        return Set.of(Fact.ROWS, Fact.PLAN);
    }

    @Override
    public Effect effect() {
        return Effect.CHANGES_MODEL;
    }

    @Override
    public boolean differentiates() {
        return true;
    }

    @Override
    public boolean solves() {
        return true;
    }

    @Override
    public Cost cost(CostModel model) {
        return model.weightGradients().times(2 * steps);
    }

    @Override
    public PruningState run(PruningState state, PassContext context) {
        if (state.prunesNothing()) {
            return state;
        }
        KfacCorrection.Result result = correct(state, context);
        return state.withWeights(result.updates()).with(entry(result, unit(state)));
    }

    private KfacCorrection.Result correct(PruningState state, PassContext context) {
        StatisticsProvider statistics = context.statistics();
        try {
            return KfacCorrection.run(
                    MeasuredStates.of(state.pruned(), state, context),
                    new KfacCorrection.Reference(
                            statistics.calibratorOfDense(state.pruned()),
                            statistics.rows(),
                            setAside == 0 ? List.of() : statistics.rowsSetAside()),
                    new KfacCorrection.Settings(steps, damping, layers == Layers.ALL, objective),
                    context.position().checkpoint());
        } catch (NoDerivativeException e) {
            throw new UserException(e.problem() + "; prune with --correct 0", e);
        }
    }

    /** The unit of the loss, with a space before it; empty for the squared error of a model without a vocabulary. */
    private static String unit(PruningState state) {
        ModelInterface graph = ModelInterface.of(state.dense().imported().graph());
        return graph.logits().isPresent() ? " nats a token" : "";
    }

    private ReportEntry entry(KfacCorrection.Result result, String unit) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("linear_layers", result.updates().size());
        json.put("objective", objective.partName());
        json.put("loss_before", result.before());
        json.put("loss_after", result.after());
        return ReportEntry.of(
                "correction",
                String.format(
                        Locale.ROOT,
                        "%d linear layers were corrected by gradients: %s %.4f -> %.4f%s",
                        result.updates().size(),
                        objective.title(),
                        result.before(),
                        result.after(),
                        unit),
                json);
    }
}
