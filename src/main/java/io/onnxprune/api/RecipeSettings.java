// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import io.onnxprune.diag.UsageException;
import io.onnxprune.eval.DataRequest;
import io.onnxprune.option.Extensions;
import io.onnxprune.passes.AllocatePass;
import io.onnxprune.passes.PruneTarget;
import io.onnxprune.passes.RecoverPass;
import io.onnxprune.plan.Budget;
import io.onnxprune.recipe.PassStep;
import io.onnxprune.recipe.Recipe;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;

/** A method, and what is to be changed of its recipe. */
public final class RecipeSettings {
    /** The method unless another is named. */
    public static final String DEFAULT_METHOD = "auto";

    private static final String ALLOCATE = "allocate";
    private static final String RECOVER = "recover";

    private List<Path> extensions = List.of();
    private Optional<String> method = Optional.empty();
    private Optional<Path> file = Optional.empty();
    private Optional<Recipe> recipe = Optional.empty();
    private final Map<String, String> allocate = new LinkedHashMap<>();
    private OptionalInt steps = OptionalInt.empty();
    private Optional<Boolean> refit = Optional.empty();
    private OptionalInt correct = OptionalInt.empty();
    private Optional<String> recover = Optional.empty();
    private boolean neverRecover;
    private final Map<String, String> training = new LinkedHashMap<>();
    private boolean verify = true;
    private boolean settled;

    /** Adds jars with passes and parts of one's own. */
    public RecipeSettings extensions(List<Path> jars) {
        extensions = List.copyOf(jars);
        return this;
    }

    /** Sets a bundled recipe; {@value #DEFAULT_METHOD} by default. */
    public RecipeSettings method(String name) {
        method = Optional.of(name);
        return this;
    }

    /** Sets a recipe file. */
    public RecipeSettings recipe(Path path) {
        file = Optional.of(path);
        return this;
    }

    /** Sets a recipe. */
    public RecipeSettings recipe(Recipe given) {
        recipe = Optional.of(given);
        return this;
    }

    /** A recipe that was resolved before and runs as it is, also where it makes no plan. */
    static RecipeSettings settled(Recipe given) {
        RecipeSettings settings = new RecipeSettings().recipe(given);
        settings.settled = true;
        return settings;
    }

    /**
     * Changes an option of the recipe's allocate passes, by its key in recipes: {@code ratio}, {@code prune}, {@code scope}, ...
     * In a recipe that only makes zeros, {@code ratio} is the share of zeros.
     */
    public RecipeSettings allocate(String key, String value) {
        allocate.put(key, value);
        return this;
    }

    /** Sets the number of steps in which the target is reached. */
    public RecipeSettings steps(int count) {
        if (count < 1) {
            throw new UsageException("--steps must be a whole number of at least 1, not \"" + count + '"');
        }
        steps = OptionalInt.of(count);
        return this;
    }

    /** Adds or removes a pass that refits the residual stream; by default the recipe says. */
    public RecipeSettings refit(boolean wanted) {
        refit = Optional.of(wanted);
        return this;
    }

    /** Sets the number of corrections by gradients, 0 for none; by default the recipe says. */
    public RecipeSettings correct(int times) {
        if (times < 0) {
            throw new UsageException("--correct is a number of steps, 0 or more, not " + times);
        }
        correct = OptionalInt.of(times);
        return this;
    }

    /**
     * Adds training of the pruned model.
     *
     * @param data a file, which trains as LLM-Pruner does, or {@value RecoverPass#CALIBRATION_ROWS}
     */
    public RecipeSettings recover(String data) {
        recover = Optional.of(data);
        return this;
    }

    /** Removes training from the recipe. */
    public RecipeSettings withoutRecovery() {
        neverRecover = true;
        return this;
    }

    /** Changes an option of the recipe's recover pass, by its key in recipes. */
    public RecipeSettings training(String key, String value) {
        training.put(key, value);
        return this;
    }

    /** Leaves out the comparison with the masked model, if {@code wanted} is false. */
    public RecipeSettings verify(boolean wanted) {
        verify = wanted;
        return this;
    }

    /** Whether an option of allocation was changed. */
    boolean isGiven(String key) {
        return allocate.containsKey(key);
    }

    /** Whether training was asked for. */
    boolean trains() {
        return recover.isPresent();
    }

    /** The recipe file. */
    List<Path> extensionFiles() {
        return extensions;
    }

    Optional<Path> file() {
        return file;
    }

    /**
     * The recipe with all changes.
     *
     * @param seed that was set; empty if none was
     * @param length tokens of a row, if they were set
     * @throws UsageException if a change is not possible, or has no effect
     */
    Recipe resolve(Optional<Long> seed, OptionalInt length) {
        if (method.isPresent() && file.isPresent()) {
            throw new UsageException("--method and --recipe both name a recipe; give one of them");
        }
        if (settled) {
            return recipe.orElseThrow();
        }
        Extensions known = Extensions.of(extensions);
        Recipe base = recipe.orElseGet(() -> file.map(path -> Recipe.read(path, known))
                .orElseGet(() -> Recipe.bundled(method.orElse(DEFAULT_METHOD), known)));
        Recipe changed = base.has(ALLOCATE) ? planned(base) : sparse(base);
        changed = seed.isPresent() ? seeded(changed, seed.get()) : changed;
        changed = trained(changed, length);
        return verify ? changed : changed.without("verify");
    }

    /**
     * The recipe of another method with the same target, structures and other options of allocation.
     *
     * @throws UsageException if it cannot have them
     */
    Recipe of(String otherMethod) {
        RecipeSettings other = new RecipeSettings().extensions(extensions).method(otherMethod);
        other.allocate.putAll(allocate);
        return other.resolve(Optional.empty(), OptionalInt.empty());
    }

    private Recipe planned(Recipe base) {
        Recipe changed = base;
        if (PruneTarget.KEYS.stream().anyMatch(allocate::containsKey)) {
            for (String key : PruneTarget.ALL) {
                changed = changed.withDefault(ALLOCATE, key);
            }
        }
        for (Map.Entry<String, String> value : allocate.entrySet()) {
            changed = withOption(changed, ALLOCATE, value.getKey(), value.getValue());
        }
        requireOneTarget();
        requireTarget(changed);
        // The values of all passes must go together.
        changed.passes();
        changed = steps.isPresent() ? changed.withSteps(steps.getAsInt()) : changed;
        if (refit.isPresent()) {
            changed = refit.get() ? added(changed, "refit") : changed.without("refit");
        }
        if (correct.isPresent()) {
            changed = correct.getAsInt() == 0
                    ? changed.without("correct")
                    : added(changed, "correct").with("correct", "steps", Integer.toString(correct.getAsInt()));
        }
        return changed;
    }

    /** Checks the target apart from the recipe, whose messages would name a line of the recipe. */
    private static void requireTarget(Recipe recipe) {
        PassStep step = recipe.first(ALLOCATE).orElseThrow();
        Map<String, String> target = new LinkedHashMap<>(step.values());
        target.keySet().retainAll(PruneTarget.ALL);
        try {
            PassStep.of(ALLOCATE, target, recipe.extensions()).pass();
        } catch (UsageException e) {
            // The sentence starts with the key, which is the option without its dashes.
            throw new UsageException("--" + e.getMessage());
        }
    }

    private void requireOneTarget() {
        List<String> targets =
                PruneTarget.KEYS.stream().filter(allocate::containsKey).toList();
        if (targets.size() > 1) {
            throw new UsageException(
                    "--" + targets.get(0) + " and --" + targets.get(1) + " each set the target; give one of them");
        }
    }

    /** A pass that measures needs rows, which a recipe without measurements does not have. */
    private static Recipe added(Recipe recipe, String pass) {
        Recipe changed = recipe.adding(pass);
        return changed.has("calibrate")
                ? changed
                : changed.adding(PassStep.of(
                        "calibrate",
                        Map.of(
                                "samples", Integer.toString(DataRequest.DEFAULT_SAMPLES),
                                "seq-len", Integer.toString(DataRequest.USUAL_LENGTH)),
                        recipe.extensions()));
    }

    /** A recipe that prunes nothing but may make zeros. */
    private Recipe sparse(Recipe base) {
        if (!base.has("sparsify")) {
            throw new UsageException("recipe " + base.name() + " has no allocate pass, so it cannot make a plan");
        }
        Map<String, Boolean> pointless = new LinkedHashMap<>();
        allocate.keySet().forEach(key -> pointless.put("--" + key, !key.equals("ratio")));
        pointless.put("--steps", steps.isPresent());
        pointless.put("--refit", refit.isPresent());
        pointless.put("--correct", correct.isPresent());
        pointless.put("--recover", recover.isPresent());
        pointless.forEach((option, given) -> {
            if (given) {
                throw new UsageException(option + " has no effect: " + base.name()
                        + " prunes nothing, it makes weights zero; leave it out, or take another method");
            }
        });
        String ratio = allocate.get("ratio");
        return ratio == null ? base : withOption(base, "sparsify", "ratio", ratio);
    }

    private static Recipe withOption(Recipe recipe, String pass, String key, String value) {
        try {
            return recipe.with(pass, key, value);
        } catch (UsageException e) {
            // The sentence starts with the key, which is the option without its dashes.
            throw new UsageException("--" + e.getMessage());
        }
    }

    /** A pass with one option changed as on the command line. */
    static PassStep withOption(PassStep step, String key, String value) {
        try {
            return step.with(key, value);
        } catch (UsageException e) {
            throw new UsageException("--" + e.getMessage());
        }
    }

    private static Recipe seeded(Recipe recipe, long seed) {
        boolean takes =
                recipe.first("score").filter(score -> score.hasOption("seed")).isPresent();
        return takes ? recipe.with("score", "seed", Long.toString(seed)) : recipe;
    }

    private Recipe trained(Recipe recipe, OptionalInt length) {
        if (neverRecover && recover.isPresent()) {
            throw new UsageException("--recover and --no-recover contradict each other; give one of them");
        }
        Recipe changed = neverRecover ? recipe.without(RECOVER) : recipe;
        if (recover.isPresent()) {
            boolean onRows = recover.get().equals(RecoverPass.CALIBRATION_ROWS);
            changed = onRows
                    ? added(changed, RECOVER)
                    : changed.adding(RECOVER)
                            .replacing(published(recipe.extensions()).with("data", recover.get()));
        }
        if (!changed.has(RECOVER)) {
            training.keySet().stream().findFirst().ifPresent(key -> {
                throw new UsageException("--" + key + " is for --recover, which was not given");
            });
            return changed;
        }
        for (Map.Entry<String, String> value : training.entrySet()) {
            changed = withOption(changed, RECOVER, value.getKey(), value.getValue());
        }
        changed.passes();
        return length.isPresent() ? changed.with(RECOVER, "seq-len", Integer.toString(length.getAsInt())) : changed;
    }

    /** The training of LLM-Pruner (arXiv 2305.11627, section 4.1 and its repository): adapters, on data, without a teacher. */
    static PassStep published(Extensions extensions) {
        return PassStep.of(
                RECOVER,
                Map.of(
                        "train", "lora",
                        "distill-weight", "0",
                        "dropout", "0.05",
                        "lr", "1e-4",
                        "schedule", "linear",
                        "batch", "64",
                        "epochs", "2",
                        "eval-every", "25"),
                extensions);
    }

    /** The budgets of a recipe's allocate passes, in their order. */
    static List<Budget> budgets(Recipe recipe) {
        return recipe.all(ALLOCATE).stream()
                .map(step -> ((AllocatePass) step.pass()).budget())
                .toList();
    }
}
