// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.passes;

import io.onnxprune.diag.Log;
import io.onnxprune.eval.Workload;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.latency.Timing;
import io.onnxprune.pass.DenseModel;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.RunSettings;
import io.onnxprune.plan.Allocation;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.Scores;
import io.onnxprune.rewrite.PrunedState;
import io.onnxprune.runtime.LastPosition;
import java.util.Map;
import java.util.Optional;
import java.util.function.BiFunction;

/**
 * Makes plans for a time and times the model of each, until the prediction is as good as the target needs. The time of a model
 * follows from its sizes alone, so this takes no measurement on data and no compensation.
 */
final class TimedPlans {
    private static final int MOST_PLANS = 4;

    private final DenseModel dense;
    private final PassContext context;
    private final BiFunction<Plan, DenseModel, Map<Value, Tensor>> norms;

    /**
     * Prepares plans for a dense model.
     *
     * @param norms the weights that follow from a plan
     */
    TimedPlans(DenseModel dense, PassContext context, BiFunction<Plan, DenseModel, Map<Value, Tensor>> norms) {
        this.dense = dense;
        this.context = context;
        this.norms = norms;
    }

    /** A budget whose plan takes the time that it predicts, as far as that can be had; any other budget as it is. */
    Budget settled(Budget budget, Scores scores) {
        Optional<Workload> work = Timing.work(budget);
        Budget now = budget;
        for (int plans = 0; work.isPresent() && plans < MOST_PLANS; plans++) {
            Allocation allocation = Allocation.of(dense.structure(), scores, now, dense.hash(), Log.NONE);
            Optional<Budget> better =
                    timing().corrected(now, now.measure(allocation.after()), seconds(allocation.plan(), work.get()));
            if (better.isEmpty()) {
                break;
            }
            now = better.get();
        }
        dense.timing().ifPresent(Timing::saved);
        return now;
    }

    private Timing timing() {
        return dense.timing().orElseThrow();
    }

    private double seconds(Plan plan, Workload work) {
        Model pruned = PrunedState.of(dense.structure(), plan, norms.apply(plan, dense))
                .model();
        boolean last = context.settings()
                .output()
                .filter(RunSettings.Output::lastLogits)
                .isPresent();
        return timing().seconds(last ? LastPosition.added(pruned) : pruned, work);
    }
}
