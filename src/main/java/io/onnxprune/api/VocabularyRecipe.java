// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import io.onnxprune.diag.UsageException;
import io.onnxprune.dims.Role;
import io.onnxprune.emit.OutputTarget;
import io.onnxprune.emit.RunFiles;
import io.onnxprune.eval.TokenData;
import io.onnxprune.passes.AllocatePass;
import io.onnxprune.passes.PruneTarget;
import io.onnxprune.passes.RecoverPass;
import io.onnxprune.passes.VerifyPass;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.Currency;
import io.onnxprune.plan.ParameterCount;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.recipe.PassStep;
import io.onnxprune.recipe.Recipe;
import io.onnxprune.vocabulary.ReducedFolder;
import java.util.List;
import java.util.Optional;
import java.util.Set;

/**
 * The recipe of a run that prunes the vocabulary, and what follows from it: the vocabulary goes first and makes the model
 * that the rest of the recipe takes for the dense one.
 */
final class VocabularyRecipe {
    private static final String ALLOCATE = "allocate";
    private static final List<String> TARGETS = PruneTarget.KEYS;

    private final Pruner.Builder settings;
    private final Recipe recipe;
    private final boolean writes;

    /**
     * Reads the recipe of a run.
     *
     * @throws UsageException if settings do not go together
     */
    VocabularyRecipe(Pruner pruner) {
        this.settings = pruner.settings();
        this.recipe = settings.recipe().resolve(settings.seed(), settings.data().sequenceLength());
        this.writes = pruner.target().isPresent();
        if (settings.vocabularyKeep().isPresent() && !isAsked()) {
            throw new UsageException("--vocabulary-keep is for --prune vocabulary, which was not given");
        }
        if (isAsked()) {
            check(pruner);
        }
    }

    private static PruneSet set(PassStep allocate) {
        return ((AllocatePass) allocate.pass()).prune();
    }

    /** Whether the vocabulary is to be pruned. */
    boolean isAsked() {
        return settings.plan().isEmpty()
                && recipe.all(ALLOCATE).stream()
                        .anyMatch(step -> set(step).roles().contains(Role.VOCABULARY));
    }

    /** Whether nothing else is to be pruned. */
    boolean isAlone() {
        return recipe.all(ALLOCATE).stream()
                .allMatch(step -> set(step).without(Role.VOCABULARY).isEmpty());
    }

    /** The target of the whole run; empty for the vocabulary alone where none was named. */
    Optional<Budget> target() {
        List<PassStep> steps = recipe.all(ALLOCATE);
        PassStep last = steps.get(steps.size() - 1);
        boolean named = TARGETS.stream().anyMatch(last::isGiven);
        boolean lists = settings.vocabularyKeep().isPresent();
        return isAlone() && (!named || lists) ? Optional.empty() : Optional.of(((AllocatePass) last.pass()).budget());
    }

    private void check(Pruner pruner) {
        boolean lists = settings.vocabularyKeep().isPresent();
        if (!lists && !settings.data().hasFiles()) {
            throw new UsageException(
                    "--prune vocabulary keeps the tokens of a text or of a list: give --calibration FILE with text, or"
                            + " --vocabulary-keep FILE with the tokens to keep");
        }
        TARGETS.stream()
                .filter(key -> lists && isAlone() && settings.recipe().isGiven(key))
                .forEach(key -> {
                    throw new UsageException(
                            "--vocabulary-keep already says which tokens stay, and nothing else is pruned, so --" + key
                                    + " has no effect; leave it out");
                });
        target().filter(budget -> budget.currency().isLimit()).ifPresent(budget -> {
            throw new UsageException(
                    "--prune vocabulary takes a target of parameters or stored bytes, not of time or memory;"
                            + " prune the vocabulary in a run of its own");
        });
        if (settings.planOut().isPresent()) {
            throw new UsageException(
                    "--plan-out has no place for tokens; leave it out, or prune the vocabulary in a run"
                            + " of its own");
        }
        if (!settings.data().sides().arrays().isEmpty()) {
            throw new UsageException(
                    "--side gives contents by rows of token ids, which change with the vocabulary; prune"
                            + " the vocabulary in a run of its own");
        }
        if (isAlone() && settings.recipe().trains()) {
            throw new UsageException(
                    "--recover trains what other structures cost; to train a model that lost tokens only, use"
                            + " onnx-prune recover on the result");
        }
        for (PassStep step : recipe.all("recover")) {
            ((RecoverPass) step.pass()).file().filter(TokenData::hasIds).ifPresent(file -> {
                throw new UsageException("--recover " + file + " has rows of token ids, which are those of the whole"
                        + " vocabulary; give text, or prune the vocabulary in a run of its own");
            });
        }
        // These are written also where no file of the name lies beside the model.
        Set<String> names = Set.of(ReducedFolder.TOKENIZER, ReducedFolder.MAP);
        RunFiles files = new RunFiles()
                .reads(settings.vocabularyKeep())
                .reads(settings.data().tokenizer());
        pruner.target()
                .filter(OutputTarget::isFolder)
                .ifPresent(target -> files.writesInto("-o", target.folder(), names::contains));
        files.check();
        boolean tokenizer = pruner.input().companion(ReducedFolder.TOKENIZER).isPresent()
                || settings.data().tokenizer().isPresent();
        if (writes && tokenizer && !pruner.target().orElseThrow().isFolder()) {
            throw new UsageException(
                    "an .onnx file alone would be without the tokenizer that fits it: the vocabulary is"
                            + " pruned into a folder, so give -o a folder");
        }
    }

    /** The tolerance of the verification; empty where the recipe has none. */
    Optional<Double> tolerance() {
        return recipe.first("verify").map(step -> ((VerifyPass) step.pass()).tolerance());
    }

    /**
     * The rest of the recipe.
     *
     * @param size of the original model
     * @param left size of the model with the kept tokens
     */
    Recipe rest(ParameterCount.Size size, ParameterCount.Size left) {
        boolean reached = target().filter(budget -> budget.measure(left) <= budget.target(size))
                .isPresent();
        return isAlone() || reached ? unplanned() : recipe.changing(ALLOCATE, step -> changed(step, size));
    }

    /** Whether other structures are to be pruned and nothing is left for them to do. */
    boolean isIdle(Recipe rest) {
        return !isAlone() && !rest.has(ALLOCATE);
    }

    /** The recipe without what prunes. */
    private Recipe unplanned() {
        return recipe.without(
                "add-biases",
                "score",
                ALLOCATE,
                "search",
                "prune-layerwise",
                "compensate",
                "refit",
                "correct",
                "recover");
    }

    /** The recipe with the other structures and the target that was named, as it can be checked before the model is read. */
    Recipe unmeasured() {
        return isAlone() ? unplanned() : recipe.changing(ALLOCATE, VocabularyRecipe::others);
    }

    private static PassStep others(PassStep allocate) {
        return allocate.with(
                "prune", set(allocate).without(Role.VOCABULARY).toString().replace(" ", ""));
    }

    private static PassStep changed(PassStep allocate, ParameterCount.Size size) {
        Budget budget = ((AllocatePass) allocate.pass()).budget();
        PassStep step = others(allocate);
        for (String key : TARGETS) {
            step = step.withDefault(key);
        }
        String key = budget.currency() == Currency.bytes() ? "size" : "params";
        return step.with(key, Long.toString((long) budget.target(size)));
    }
}
