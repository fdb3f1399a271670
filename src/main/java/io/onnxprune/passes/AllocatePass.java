// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.passes;

import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.StateSize;
import io.onnxprune.emit.Clients;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.option.Named;
import io.onnxprune.option.Option;
import io.onnxprune.pass.DenseModel;
import io.onnxprune.pass.Fact;
import io.onnxprune.pass.Pass;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.pass.RunSettings;
import io.onnxprune.pass.Scheduled;
import io.onnxprune.plan.Allocation;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.ParameterCount;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.plan.Scores;
import io.onnxprune.rewrite.NormCorrection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.Function;

/** Chooses the units, layers and blocks to prune so that the model meets a target. */
@Named(value = "allocate", summary = "Chooses what to prune so that the model meets the target.")
public record AllocatePass(
        @Option("The structures that may be pruned.") PruneSet prune,
        PruneTarget target,
        Budget.Competition competition,
        Budget.Rounding rounding,
        Budget.Protection protection,

        @Option("Rescales normalisation weights when the hidden width shrinks, whose mean square changes with it.")
        boolean normCorrection)
        implements DecidingPass {
    /** A fifth of the parameters, from heads and FFN channels of every layer alike. */
    public AllocatePass() {
        this(
                PruneSet.standard(),
                new PruneTarget(),
                new Budget.Competition(),
                new Budget.Rounding(),
                new Budget.Protection(),
                true);
    }

    /** The budget as it was asked for. */
    public Budget budget() {
        return new Budget(prune, target.target(), competition, rounding, protection);
    }

    @Override
    public Set<Fact> requires() {
        return Set.of(Fact.SCORES);
    }

    @Override
    public Set<Fact> provides() {
        return Set.of(Fact.PLAN, Fact.CHOICE);
    }

    @Override
    public Optional<PruneSet> prunes() {
        return Optional.of(prune);
    }

    /**
     * The budget for a dense model to which biases may have been added, without the dimensions that another pass cannot handle
     * or that a client needs whole.
     */
    private Budget budget(DenseModel dense, PassContext context) {
        Budget budget = dense.measured(budget().rebased(
                        dense.given(), ParameterCount.of(dense.structure()).dense()));
        for (Pass pass : context.position().all()) {
            budget = pass.restrict(budget, dense, context);
        }
        Map<String, String> refused = new LinkedHashMap<>(budget.refused());
        RunSettings settings = context.settings();
        Clients clients = settings.delivery().clients();
        refused.putAll(clients.refused(dense.structure(), prune.roles(), settings.input(), context.log()));
        return budget.withRefused(refused);
    }

    /** The budget of one step of this pass. */
    Budget budgetOf(Scheduled here, DenseModel dense, PassContext context) {
        return atStep(budget(dense, context.withLog(Log.NONE)), here, dense);
    }

    private static Budget atStep(Budget whole, Scheduled here, DenseModel dense) {
        ParameterCount.Size size =
                ParameterCount.of(dense.structure(), whole.currency()).dense();
        return whole.atStep(here.step(), here.steps(), size);
    }

    @Override
    public void check(DenseModel dense, PassContext context) {
        Budget budget = budget(dense, context);
        warnWithoutStates(dense, context);
        if (!budget.isNothing()) {
            Allocation.check(dense.structure(), budget);
        }
    }

    @Override
    public List<Dimension> shrinking(DenseModel dense, PassContext context) {
        return Allocation.candidates(dense.structure(), budget());
    }

    /** A model without states needs no memory for a context. */
    private void warnWithoutStates(DenseModel dense, PassContext context) {
        target.memory().context().ifPresent(tokens -> {
            if (StateSize.of(dense.structure().analysis(), tokens).isEmpty()) {
                context.log()
                        .warn("the model has no cache and no other state, so a context of " + tokens
                                + " tokens adds nothing to its memory");
            }
        });
    }

    /** What this step is to reach, which steps of different targets may have in common. */
    @Override
    public Object work(Scheduled here, DenseModel dense) {
        ParameterCount.Size whole = ParameterCount.of(dense.structure()).dense();
        Budget step = budget().rebased(dense.given(), whole).atStep(here.step(), here.steps(), whole);
        return List.of(step, normCorrection);
    }

    /** Makes plans of scores in the place of {@code context}, as {@link #run} does. */
    Function<Scores, Plan> planner(PruningState state, PassContext context) {
        DenseModel dense = state.dense();
        Budget step = budgetOf(context.position().current(), dense, context);
        return scores -> {
            Scores present = scores.after(state.plan(), dense.structure());
            return Allocation.of(dense.structure(), present, step, dense.hash(), Log.NONE)
                    .plan();
        };
    }

    @Override
    public PruningState run(PruningState state, PassContext context) {
        DenseModel dense = state.dense();
        Scheduled here = context.position().current();
        Scores scores = state.scores().orElseThrow().after(state.plan(), dense.structure());
        Budget whole = budget(dense, context.withLog(Log.NONE));
        boolean last = here.step() == here.steps();
        if (here.step() == 1 || last) {
            // The first plan for the whole target tells what the steps lead to.
            whole = new MeasuredPlans(dense, context).settled(whole, scores);
        }
        Budget step = atStep(whole, here, dense);
        ParameterCount.Size size =
                ParameterCount.of(dense.structure(), whole.currency()).dense();
        if (here.steps() > 1) {
            context.log().info(String.format(Locale.ROOT, "pruning up to %.1f %%", 100 * step.ratio(size)));
        }
        Allocation allocation = Allocation.of(dense.structure(), scores, step, dense.hash(), context.log());
        if (last && !step.isNothing()) {
            allocation.requireSmaller(dense.structure(), scores, step);
        }
        Plan plan = allocation.plan();
        return state.withChoice(plan, norms(plan, dense));
    }

    private Map<Value, Tensor> norms(Plan plan, DenseModel dense) {
        return normCorrection ? NormCorrection.of(dense.structure(), plan.keep(dense.structure())) : Map.of();
    }
}
