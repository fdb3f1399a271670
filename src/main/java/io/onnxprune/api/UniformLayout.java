// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UsageException;
import io.onnxprune.emit.ModelFolder;
import io.onnxprune.passes.AllocatePass;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.LayerCount;
import io.onnxprune.plan.Schedule;
import io.onnxprune.recipe.PassStep;
import io.onnxprune.recipe.Recipe;

/**
 * Equal counts in all layers, where a client's configuration can express nothing else. Layers that keep equal counts shrink
 * together: those that a recipe would leave whole, or prune less, shrink with them.
 */
final class UniformLayout {
    private final ModelFolder input;
    private final RecipeSettings settings;
    private final Log log;

    UniformLayout(ModelFolder input, RecipeSettings settings, Log log) {
        this.input = input;
        this.settings = settings;
        this.log = log;
    }

    /**
     * A recipe that keeps to the layout that its model's folder needs.
     *
     * @throws UsageException if a setting has no effect in it
     */
    Recipe applied(Recipe recipe) {
        PassStep allocate = recipe.first("allocate").orElseThrow();
        Recipe changed = recipe;
        if (input.companion(ModelFolder.GENAI_CONFIG).isPresent() && !allocate.isGiven("layout")) {
            log.info("genai_config.json has one head count for all layers, so all layers keep equal counts"
                    + " (--layout per-layer to let them differ)");
            changed = changed.with("allocate", "layout", "uniform");
        }
        Budget budget = ((AllocatePass) changed.first("allocate").orElseThrow().pass()).budget();
        return budget.layout() == Budget.Layout.UNIFORM ? alike(changed, budget) : changed;
    }

    private Recipe alike(Recipe recipe, Budget budget) {
        Recipe changed = recipe;
        boolean scheduled = budget.schedule().shape() != Schedule.Shape.UNIFORM;
        if (scheduled && settings.isGiven("schedule")) {
            throw new UsageException("--schedule " + budget.schedule()
                    + " has no effect in a uniform layout, where all layers shrink alike; add --layout per-layer");
        }
        LayerCount none = LayerCount.of(0);
        boolean skips = !budget.skipFirst().equals(none) || !budget.skipLast().equals(none);
        if (skips && !settings.isGiven("skip-first") && !settings.isGiven("skip-last")) {
            log.info("in a uniform layout all layers of " + input.model().getFileName()
                    + " shrink alike, also those that the recipe leaves whole otherwise");
            changed = changed.withDefault("allocate", "skip-first").withDefault("allocate", "skip-last");
        }
        if (scheduled) {
            log.info("in a uniform layout all layers of " + input.model().getFileName()
                    + " shrink alike, so the recipe's schedule " + budget.schedule() + " has no effect");
            changed = changed.withDefault("allocate", "schedule").withDefault("allocate", "first-ratio");
        }
        return changed;
    }
}
