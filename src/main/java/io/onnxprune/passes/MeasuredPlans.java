// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.passes;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.StateSize;
import io.onnxprune.ir.Model;
import io.onnxprune.latency.Timing;
import io.onnxprune.pass.DenseModel;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.RunSettings;
import io.onnxprune.plan.Allocation;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.Currency;
import io.onnxprune.plan.ParameterCount;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.Scores;
import io.onnxprune.rewrite.PrunedState;
import io.onnxprune.runtime.LastPosition;
import java.util.Map;
import java.util.Optional;

/**
 * Makes plans for a limit of time or memory and measures the model of each, until the prediction is as good as the target needs.
 * Time and memory of a model follow from its sizes alone, so this takes no measurement on data and no compensation.
 */
final class MeasuredPlans {
    private static final int MOST_PLANS = 5;

    private final DenseModel dense;
    private final PassContext context;

    MeasuredPlans(DenseModel dense, PassContext context) {
        this.dense = dense;
        this.context = context;
    }

    /** A budget whose plan costs what it predicts, as far as that can be had; one that is no limit as it is. */
    Budget settled(Budget budget, Scores scores) {
        Budget now = budget;
        for (int plans = 0; budget.currency().isLimit() && plans < MOST_PLANS; plans++) {
            Optional<Budget> better = better(now, scores);
            if (better.isEmpty()) {
                break;
            }
            now = better.get();
        }
        dense.timing().ifPresent(Timing::saved);
        return now;
    }

    private Optional<Budget> better(Budget budget, Scores scores) {
        Allocation allocation = Allocation.of(dense.structure(), scores, budget, dense.hash(), Log.NONE);
        Model pruned = pruned(allocation.plan());
        double predicted = budget.measure(allocation.after());
        if (budget.currency().context().isPresent()) {
            long tokens = budget.currency().context().getAsLong();
            long bytes = ParameterCount.storedBytes(pruned.graph())
                    + StateSize.bytes(pruned.graph(), tokens, dense.structure().analysis());
            Currency exact = Currency.memory(tokens, budget.currency().extra() + bytes - Math.round(predicted));
            return bytes == Math.round(predicted)
                    ? Optional.empty()
                    : possible(dense.timing().orElseThrow().learnt(budget.in(exact)), scores);
        }
        Timing timing = dense.timing().orElseThrow();
        return timing.corrected(
                        budget,
                        predicted,
                        timing.seconds(pruned, Timing.work(budget).orElseThrow()))
                .flatMap(better -> possible(better, scores));
    }

    /** A budget if its target can be reached. */
    private Optional<Budget> possible(Budget budget, Scores scores) {
        try {
            Allocation.of(dense.structure(), scores, budget, dense.hash(), Log.NONE);
            return Optional.of(budget);
        } catch (UserException e) {
            context.log().warn("the plan cannot come nearer to its target: " + e.getMessage());
            return Optional.empty();
        }
    }

    private Model pruned(Plan plan) {
        Model pruned = PrunedState.of(dense.structure(), plan, Map.of()).model();
        boolean last = context.settings()
                .output()
                .filter(RunSettings.Output::lastLogits)
                .isPresent();
        return last ? LastPosition.added(pruned) : pruned;
    }
}
