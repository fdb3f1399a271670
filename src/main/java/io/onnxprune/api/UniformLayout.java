// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UsageException;
import io.onnxprune.emit.Client;
import io.onnxprune.emit.Clients;
import io.onnxprune.emit.ModelFolder;
import io.onnxprune.passes.AllocatePass;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.LayerCount;
import io.onnxprune.plan.Schedule;
import io.onnxprune.recipe.Recipe;
import java.util.Optional;

/**
 * Equal counts in all layers, where a client's configuration can express nothing else. Layers that keep equal counts shrink
 * together: those that a recipe would leave whole, or prune less, shrink with them.
 */
final class UniformLayout {
    private final ModelFolder input;
    private final Clients clients;
    private final RecipeSettings settings;
    private final Log log;

    UniformLayout(ModelFolder input, Clients clients, RecipeSettings settings, Log log) {
        this.input = input;
        this.clients = clients;
        this.settings = settings;
        this.log = log;
    }

    /**
     * A recipe that keeps to the layout that its clients need.
     *
     * @throws UsageException if a setting has no effect in it, or asks for another layout
     */
    Recipe applied(Recipe recipe) {
        Recipe changed = recipe;
        Optional<Client> client = clients.needsEqualLayers();
        if (client.isPresent() && !isUniform(recipe)) {
            if (settings.isGiven("layout")) {
                throw new UsageException("--layout per-layer cannot be served by "
                        + client.get().title()
                        + ", for which all layers keep equal counts; leave it out, or leave out --for " + clients);
            }
            log.info("all layers keep equal counts for " + client.get().title());
            changed = changed.with("allocate", "layout", "uniform");
        }
        return isUniform(changed) ? alike(changed, budget(changed)) : changed;
    }

    private static Budget budget(Recipe recipe) {
        return ((AllocatePass) recipe.first("allocate").orElseThrow().pass()).budget();
    }

    private static boolean isUniform(Recipe recipe) {
        return budget(recipe).layout() == Budget.Layout.UNIFORM;
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
