// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.passes;

import io.onnxprune.diag.Amount;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UsageException;
import io.onnxprune.dims.Dimension;
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
        Target target,
        Budget.Competition competition,
        Budget.Rounding rounding,
        Budget.Protection protection,

        @Option("Rescales normalisation weights when the hidden width shrinks, whose mean square changes with it.")
        boolean normCorrection)
        implements DecidingPass {
    /** The target as a recipe writes it. */
    public record Target(
            @Option(value = "Share of the dense model's parameters to prune.", below = 1)
            double ratio,

            @Option("Parameters to keep, such as 1.1B or 700M, in place of a ratio.")
            Optional<String> params,

            @Option("Bytes to keep, such as 900MB, in place of a ratio.")
            Optional<String> size) {
        /** A fifth of the parameters. */
        public Target() {
            this(0.2, Optional.empty(), Optional.empty());
        }

        public Target {
            if (params.isPresent() && size.isPresent()) {
                throw new UsageException("params and size each set the target; give one of them");
            }
            params.ifPresent(text -> Amount.parameters(text, "params"));
            size.ifPresent(text -> Amount.bytes(text, "size"));
        }

        private Budget.Target amount() {
            return params.map(text -> new Budget.Target(Budget.Goal.PARAMETERS, Amount.parameters(text, "params")))
                    .or(() -> size.map(text -> new Budget.Target(Budget.Goal.BYTES, Amount.bytes(text, "size"))))
                    .orElse(new Budget.Target(Budget.Goal.RATIO, ratio));
        }
    }

    /** A fifth of the parameters, from heads and FFN channels of every layer alike. */
    public AllocatePass() {
        this(
                PruneSet.standard(),
                new Target(),
                new Budget.Competition(),
                new Budget.Rounding(),
                new Budget.Protection(),
                true);
    }

    /** The budget as it was asked for. */
    public Budget budget() {
        return new Budget(prune, target.amount(), competition, rounding, protection);
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
        Budget budget = budget().rebased(
                        dense.given(), ParameterCount.of(dense.structure()).dense());
        for (Pass pass : context.position().all()) {
            budget = pass.restrict(budget, dense, context);
        }
        Map<String, String> refused = new LinkedHashMap<>(budget.refused());
        RunSettings settings = context.settings();
        Clients clients = settings.delivery().clients();
        refused.putAll(clients.refused(dense.structure(), prune.roles(), settings.input(), context.log()));
        return budget.withRefused(refused);
    }

    @Override
    public void check(DenseModel dense, PassContext context) {
        Budget budget = budget(dense, context);
        if (!budget.isNothing()) {
            Allocation.check(dense.structure(), budget);
        }
    }

    @Override
    public List<Dimension> shrinking(DenseModel dense, PassContext context) {
        return Allocation.candidates(dense.structure(), budget());
    }

    /** The budget of the step that a pass is in. */
    private Budget step(DenseModel dense, PassContext context) {
        Scheduled here = context.position().current();
        ParameterCount.Size whole = ParameterCount.of(dense.structure()).dense();
        return budget(dense, context.withLog(Log.NONE)).atStep(here.step(), here.steps(), whole);
    }

    /** Makes plans of scores in the place of {@code context}, as {@link #run} does. */
    Function<Scores, Plan> planner(PruningState state, PassContext context) {
        DenseModel dense = state.dense();
        Budget step = step(dense, context);
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
        ParameterCount.Size whole = ParameterCount.of(dense.structure()).dense();
        Budget step = step(dense, context);
        if (here.steps() > 1) {
            context.log().info(String.format(Locale.ROOT, "pruning up to %.1f %%", 100 * step.ratio(whole)));
        }
        Scores scores = state.scores().orElseThrow().after(state.plan(), dense.structure());
        Allocation allocation = Allocation.of(dense.structure(), scores, step, dense.hash(), context.log());
        if (here.step() == here.steps() && !step.isNothing()) {
            allocation.requireSmaller(dense.structure(), scores, step);
        }
        Plan plan = allocation.plan();
        return state.withChoice(plan, norms(plan, dense));
    }

    private Map<Value, Tensor> norms(Plan plan, DenseModel dense) {
        return normCorrection ? NormCorrection.of(dense.structure(), plan.keep(dense.structure())) : Map.of();
    }
}
