// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.pass.DenseModel;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.Scheduled;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.recipe.Recipe;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/** Finds the bundled methods that can reach a target on a model, by asking the passes of each. */
final class OtherMethods {
    private final RecipeSettings settings;
    private final DenseModel dense;
    private final PassContext context;

    /** Prepares questions about the model and the target of a run. */
    OtherMethods(RecipeSettings settings, DenseModel dense, PassContext context) {
        this.settings = settings;
        this.dense = dense;
        this.context = context.withLog(Log.NONE);
    }

    /**
     * A problem with the names of the methods that do not have it.
     *
     * @param asked the budget of the run that has the problem
     */
    UserException named(UserException problem, Budget asked) {
        List<String> able = new ArrayList<>();
        for (String name : Recipe.bundledNames()) {
            // A variant is as able as its base.
            boolean variant = able.stream().anyMatch(base -> name.startsWith(base + "-"));
            if (!variant && !name.equals(context.settings().method()) && isAble(name, asked.prune())) {
                able.add(name);
            }
        }
        return able.isEmpty()
                ? problem
                : new UserException(
                        problem.getMessage() + "; methods that can prune this: " + String.join(", ", able), problem);
    }

    private boolean isAble(String method, PruneSet prune) {
        try {
            Recipe recipe = settings.of(method);
            Optional<Budget> budget = RecipeSettings.budgets(recipe).stream().reduce((first, last) -> last);
            if (budget.isEmpty() || !budget.get().prune().equals(prune)) {
                return false;
            }
            double ratio = dense.share(budget.get());
            List<Scheduled> schedule = recipe.schedule(repeat -> repeat.count(ratio));
            for (int i = 0; i < schedule.size(); i++) {
                schedule.get(i)
                        .pass()
                        .check(dense, context.at(new PassContext.Position(schedule, i, Optional.empty())));
            }
            return true;
        } catch (UserException e) {
            return false;
        }
    }
}
