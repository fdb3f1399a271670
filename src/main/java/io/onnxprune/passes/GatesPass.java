// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.passes;

import io.onnxprune.autodiff.NoDerivativeException;
import io.onnxprune.compensate.GateTraining;
import io.onnxprune.diag.UsageException;
import io.onnxprune.diag.UserException;
import io.onnxprune.method.MeasuredStates;
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
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.Scores;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/** Trains scores by gradients through gates. */
@Named(
        value = "gates",
        summary =
                "Trains the scores of units by gates at the inputs of their consumers, so that the model that the next pass"
                        + " `allocate` makes of them predicts as the dense model does.")
public record GatesPass(
        @Option(
                value =
                        "Most passes over the rows; training stops when three have not helped on the eighth of them that is"
                                + " set aside.",
                min = 1)
        int epochs,

        @Option(value = "Rows of a step.", min = 1) int batch,

        @Option(
                value =
                        "How far scores move in the first step, in units of the logarithm of importance; it falls evenly to zero.")
        double rate,

        @Option(value = "How far from the threshold gates still move, in the same unit.")
        double temperature,

        @Option(
                "Whether the weights of the consumers are solved anew for what each step keeps, as `compensate` does with"
                        + " least squares.")
        boolean solve,

        @Option("Added to the diagonal of XᵀX for that, as a share of its mean.")
        double damping)
        implements Pass {
    /** The least factor that a rate or temperature can be. */
    private static final double LEAST = 1e-6;

    /** Eight epochs with steps of sixteen rows. */
    public GatesPass() {
        this(8, 16, 0.02, 1, true, 0.01);
    }

    public GatesPass {
        if (!(rate >= LEAST) || !(temperature >= LEAST) || !(damping >= 0)) {
            throw new UsageException("rate and temperature of gates must be positive, and damping not negative");
        }
    }

    @Override
    public Set<Fact> requires() {
        return Set.of(Fact.ROWS, Fact.SCORES);
    }

    @Override
    public Set<Fact> provides() {
        return Set.of(Fact.SCORES);
    }

    /** What was pruned before may return, so gates begin with the dense model. */
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
        return solve;
    }

    @Override
    public Cost cost(CostModel model) {
        Cost epoch = model.weightGradients();
        return (solve
                        ? epoch.then(model.forward().times(2))
                                .then(model.inputMoments().times(2))
                        : epoch)
                .times(epochs);
    }

    /** Refuses a recipe in which scores of different dimensions are not compared. */
    @Override
    public void check(DenseModel dense, PassContext context) {
        if (allocation(context).budget().scope() != Budget.Scope.GLOBAL) {
            throw new UserException("gates compare the units of all dimensions in one ranking; choose scope global");
        }
    }

    private static AllocatePass allocation(PassContext context) {
        return context.position().later().stream()
                .filter(AllocatePass.class::isInstance)
                .map(AllocatePass.class::cast)
                .findFirst()
                .orElseThrow(
                        () -> new UserException("pass gates needs a pass allocate behind it, whose target it meets"));
    }

    @Override
    public PruningState run(PruningState before, PassContext context) {
        PruningState state = before.restarted();
        AllocatePass allocation = allocation(context);
        boolean perParameter = allocation.budget().rank() == Budget.Rank.SCORE_PER_PARAMETER;
        Optional<GateTraining.Result> result = train(
                state,
                context,
                new GateTraining.Ranking(
                        state.scores().orElseThrow(), perParameter, allocation.planner(state, context)));
        return result.map(found -> state.withScores(found.scores()).with(entry(found)))
                .orElse(before);
    }

    /** Trains gates; empty where the budget prunes nothing. */
    private Optional<GateTraining.Result> train(PruningState state, PassContext context, GateTraining.Ranking ranking) {
        Scores start = ranking.scores();
        if (ranking.plan().apply(start).removesNothing(state.dense().structure())) {
            return Optional.empty();
        }
        try {
            return Optional.of(GateTraining.run(
                    MeasuredStates.of(state.pruned(), state, context),
                    new GateTraining.Data(
                            context.statistics().calibratorOfDense(state.pruned()),
                            context.statistics().rows(),
                            context.settings().seed()),
                    ranking,
                    new GateTraining.Settings(epochs, batch, rate, temperature, solve ? damping : -1),
                    context.position().checkpoint()));
        } catch (NoDerivativeException e) {
            throw new UserException(e.problem() + "; choose a method without gates", e);
        }
    }

    private static ReportEntry entry(GateTraining.Result result) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("epochs", result.epochs());
        json.put("loss_before", result.before());
        json.put("loss_after", result.after());
        return ReportEntry.of(
                "gates",
                String.format(
                        Locale.ROOT,
                        "gates were trained for %d epochs: divergence from the dense model %.4f -> %.4f on rows that were set"
                                + " aside",
                        result.epochs(),
                        result.before(),
                        result.after()),
                json);
    }
}
