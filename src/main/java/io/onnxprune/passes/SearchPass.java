// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.passes;

import io.onnxprune.compensate.BudgetSearch;
import io.onnxprune.diag.UsageException;
import io.onnxprune.dims.Structure;
import io.onnxprune.measure.StatisticsProvider;
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
import io.onnxprune.pass.Scheduled;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.Reallocation;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;

/** Moves budget between the places of an allocation as long as measured predictions come nearer to those of the dense model. */
@Named(
        value = "search",
        summary =
                "Moves the budget of an allocation between dimensions, and lets entire blocks go, where measured predictions come"
                        + " nearer to those of the dense model on rows that nothing is solved for.")
public record SearchPass(
        @Option(value = "Largest number of generations.", min = 1)
        int generations,

        @Option(value = "Number of candidates in each generation that move budget between dimensions.", min = 1)
        int candidates,

        @Option(
                value =
                        "The first amount that is moved, as a share of the mean size of a dimension's parameters; halved where no"
                                + " candidate is better.",
                below = 1)
        double quantum,

        @Option("Whether entire attention and feed-forward blocks may go.")
        boolean blocks,

        @Option("Added to the diagonal of XᵀX of the layers that compensate in candidates, as a share of its mean.")
        double damping,

        @Option(value = "Share of the calibration rows, the last ones, on which candidates are compared.", below = 1)
        double setAside)
        implements Pass {
    /** Four generations of sixteen candidates that move an eighth at first. */
    public SearchPass() {
        this(4, 16, 0.125, true, 0.01, 0.125);
    }

    public SearchPass {
        if (quantum == 0 || setAside == 0) {
            throw new UsageException("pass search needs " + (quantum == 0 ? "quantum" : "set-aside") + " above 0");
        }
    }

    @Override
    public Set<Fact> requires() {
        return Set.of(Fact.ROWS, Fact.SCORES, Fact.CHOICE);
    }

    @Override
    public Set<Fact> provides() {
        return Set.of(Fact.PLAN, Fact.CHOICE);
    }

    @Override
    public boolean solves() {
        return true;
    }

    /** Candidates and probes of each generation on few tokens, a quarter of them on more, and the inputs' moments. */
    @Override
    public Cost cost(CostModel model) {
        return model.forward()
                .times((int) Math.ceil(4 * generations * setAside))
                .then(model.inputMoments());
    }

    /**
     * Refuses an order without an allocation to search around.
     *
     * @throws UsageException if the plan comes from anything else
     */
    @Override
    public void check(DenseModel dense, PassContext context) {
        allocation(context);
    }

    /** The allocation that the choice comes from. */
    private static Scheduled allocation(PassContext context) {
        List<Scheduled> before =
                context.position().schedule().subList(0, context.position().index());
        return before.stream()
                .filter(scheduled -> scheduled.pass().provides().contains(Fact.CHOICE))
                .filter(scheduled -> !(scheduled.pass() instanceof SearchPass))
                .reduce((first, second) -> second)
                .filter(scheduled -> scheduled.pass() instanceof AllocatePass)
                .orElseThrow(() -> new UsageException(
                        "pass search moves the budget of a pass allocate, so there must be one before it"));
    }

    @Override
    public PruningState run(PruningState state, PassContext context) {
        if (state.prunesNothing()) {
            return state;
        }
        Structure structure = state.dense().structure();
        Scheduled scheduled = allocation(context);
        AllocatePass allocate = (AllocatePass) scheduled.pass();
        Budget budget = allocate.budgetOf(scheduled, state.dense(), context);
        Reallocation.Around around = new Reallocation.Around(state.pruned().plan(), state.plan());
        StatisticsProvider statistics = context.statistics();
        BudgetSearch.Found found = BudgetSearch.run(
                MeasuredStates.of(state.pruned(), state, context),
                new BudgetSearch.Reference(statistics.calibratorOfDense(state.pruned()), statistics.rowsSetAside()),
                movable -> new Reallocation(structure, state.scores().orElseThrow(), budget, around, movable),
                new BudgetSearch.Settings(generations, candidates, quantum, blocks, damping),
                context.position().checkpoint());
        Plan plan = found.space().plan(found.result().best());
        return state.withChoice(plan, Map.of()).with(entry(found.result(), plan, structure));
    }

    private static ReportEntry entry(BudgetSearch.Result result, Plan plan, Structure structure) {
        int all = structure.stream().blocks().size();
        int gone = plan.blocks() == null ? 0 : all - plan.blocks().length;
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("generations", result.generations());
        json.put("measured", result.measured());
        json.put("divergence_before", result.start());
        json.put("divergence_after", result.reached());
        json.put("blocks_gone", gone);
        return ReportEntry.of(
                "search",
                String.format(
                        Locale.ROOT,
                        "the last search of the budget measured %d allocations: divergence from the dense model %.4f -> %.4f on rows"
                                + " set aside%s",
                        result.measured(),
                        result.start(),
                        result.reached(),
                        gone == 0 ? "" : "; " + gone + " residual blocks have gone"),
                json);
    }
}
