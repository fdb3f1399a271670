// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recipe;

import io.onnxprune.compensate.KfacCorrection;
import io.onnxprune.compensate.KroneckerUpdate;
import io.onnxprune.compensate.SequentialPruning.Choice;
import io.onnxprune.compensate.SequentialPruning.Selection;
import io.onnxprune.compensate.SequentialPruning.Update;
import io.onnxprune.compensate.Sparsification;
import io.onnxprune.compensate.SurgeonSparsification;
import io.onnxprune.diag.UsageException;
import io.onnxprune.obs.Pattern;
import io.onnxprune.plan.ActivationImportance;
import io.onnxprune.plan.BlockInfluence;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.Importance;
import io.onnxprune.plan.LayerCount;
import io.onnxprune.plan.Magnitude;
import io.onnxprune.plan.Measurements;
import io.onnxprune.plan.PositionImportance;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.plan.RandomImportance;
import io.onnxprune.plan.Reduction;
import io.onnxprune.plan.Schedule;
import io.onnxprune.plan.Taylor;
import io.onnxprune.recover.Targets;
import io.onnxprune.recover.TrainingOptions;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalInt;
import java.util.Set;
import java.util.regex.Matcher;

/** What the passes that make a plan stand for. */
public final class PlanPasses {
    private PlanPasses() {}

    /**
     * The importance that a {@link PassKind#SCORE} pass asks for.
     *
     * @param prune what may be removed, so that nothing else need be scored
     * @param threads for reading weights
     * @param data what it is measured on; null where it needs none
     */
    public static Importance importance(Pass score, PruneSet prune, int threads, Measurements data) {
        Reduction reduction = constant(Reduction.class, score, "reduction");
        return switch (score.word("metric")) {
            case "magnitude" -> new Magnitude(constant(Magnitude.Norm.class, score, "norm"), reduction, threads);
            case "random" -> new RandomImportance(score.integer("seed"));
            case "position" -> new PositionImportance();
            case "taylor" ->
                new Taylor(constant(Taylor.Kind.class, score, "importance"), reduction, prune, data.gradients());
            case "wanda", "flap" ->
                new ActivationImportance(
                        constant(ActivationImportance.Kind.class, score, "metric"), prune, data.inputs());
            case "block-influence" -> new BlockInfluence(prune, data.similarities());
            default -> throw new IllegalArgumentException("no importance " + score.word("metric"));
        };
    }

    /** Whether anything that a recipe does is measured on data. */
    public static boolean needsData(Recipe recipe) {
        Pass score = recipe.pass(PassKind.SCORE);
        return comparesConsumers(recipe)
                || score != null && Set.of("taylor", "block-influence").contains(score.word("metric"))
                || adjusts(recipe);
    }

    /** Whether a recipe measures {@link io.onnxprune.calibrate.Statistics} of the whole model in its first step. */
    public static boolean usesStatistics(Recipe recipe) {
        Pass score = recipe.pass(PassKind.SCORE);
        Pass sparsify = recipe.pass(PassKind.SPARSIFY);
        return isObs(score) && !isSequential(score)
                || recipe.pass(PassKind.ALLOCATE) == null && sparsify != null && isSurgeon(sparsify);
    }

    /**
     * Whether such statistics are all that a recipe needs of data.
     *
     * @param ratio the largest share of the parameters that it may be asked to remove
     */
    public static boolean needsOnlyStatistics(Recipe recipe, double ratio) {
        if (recipe.pass(PassKind.ALLOCATE) == null) {
            return usesStatistics(recipe)
                    && recipe.pass(PassKind.SPARSIFY).integer("steps") == 1
                    && !adjusts(recipe.without(PassKind.SPARSIFY));
        }
        return usesStatistics(recipe)
                && !adjusts(sharesScores(recipe) ? recipe.without(PassKind.COMPENSATE) : recipe)
                && steps(recipe.pass(PassKind.ALLOCATE), ratio) == 1;
    }

    /** Whether the new weights of a recipe follow from the statistics of the very model that it scores. */
    private static boolean sharesScores(Recipe recipe) {
        PruneSet prune = PruneSet.parse(recipe.pass(PassKind.ALLOCATE).words("prune"));
        return !prune.layers()
                && !prune.blocks()
                && kronecker(recipe.pass(PassKind.COMPENSATE))
                        .filter(settings -> settings.sides() == KroneckerUpdate.Sides.INPUTS)
                        .isPresent();
    }

    /** Whether a recipe makes new weights on data, whatever the plan. */
    public static boolean adjusts(Recipe recipe) {
        return update(recipe.pass(PassKind.COMPENSATE)).isPresent()
                || kronecker(recipe.pass(PassKind.COMPENSATE)).isPresent()
                || recipe.pass(PassKind.REFIT) != null
                || recipe.pass(PassKind.CORRECT) != null
                || recipe.pass(PassKind.RECOVER) != null && recoveryData(recipe).isEmpty()
                || recipe.pass(PassKind.SPARSIFY) != null;
    }

    /** Whether a {@link PassKind#SPARSIFY} pass chooses zeros by the curvature of the loss. */
    public static boolean isSurgeon(Pass sparsify) {
        return sparsify.word("by").equals("surgeon");
    }

    /**
     * What a {@link PassKind#SPARSIFY} pass asks for that looks at one product after the other.
     *
     * @throws UsageException if options do not go together, or all weights would be zero
     */
    public static Sparsification.Request sparsification(Pass sparsify) {
        String word = sparsify.word("pattern");
        Pattern pattern = pattern(sparsify);
        if (pattern instanceof Pattern.Structured) {
            throw new UsageException(
                    "pattern structured is known only to by surgeon, not to by " + sparsify.word("by"));
        }
        if (pattern instanceof Pattern.Grouped grouped && sparsify.isGiven("ratio")) {
            throw new UsageException("ratio has no effect with pattern " + word + ", which makes " + grouped.zeros()
                    + " of every " + grouped.of() + " weights zero");
        }
        for (String key : List.of("steps", "gradient-damping", "correlate")) {
            if (sparsify.isGiven(key)) {
                throw new UsageException(
                        key + " has no effect with by " + sparsify.word("by") + ", only with by surgeon; leave it out");
            }
        }
        return new Sparsification.Request(
                constant(Sparsification.Method.class, sparsify, "by"), pattern, sparsify.number("damping"));
    }

    /**
     * What a {@link PassKind#SPARSIFY} pass asks for where {@link #isSurgeon}.
     *
     * @throws UsageException if options do not go together, or there would be more zeros than the pattern has
     */
    public static SurgeonSparsification.Request surgeon(Pass sparsify) {
        Pattern pattern = pattern(sparsify);
        double share = pattern.share();
        if (pattern instanceof Pattern.Grouped && sparsify.isGiven("ratio")) {
            share = sparsify.number("ratio");
            if (share > pattern.share()) {
                throw new UsageException("ratio " + share + " is more than the share of zeros that pattern "
                        + sparsify.word("pattern") + " has, which is " + pattern.share());
            }
        }
        if (pattern instanceof Pattern.Structured && sparsify.isGiven("correlate")) {
            throw new UsageException(
                    "correlate has no effect with pattern structured, where all inputs and outputs of a"
                            + " matrix are made up for together; leave it out");
        }
        return new SurgeonSparsification.Request(
                pattern,
                share,
                sparsify.integer("steps"),
                sparsify.number("damping"),
                sparsify.number("gradient-damping"),
                sparsify.integer("correlate"));
    }

    private static Pattern pattern(Pass sparsify) {
        String word = sparsify.word("pattern");
        double share = sparsify.number("ratio");
        if (!(share < 1)) {
            throw new UsageException("the share of zeros must be at least 0 and less than 1, not " + share);
        }
        Matcher grouped = PassOption.GROUPED.matcher(word);
        if (grouped.matches()) {
            return new Pattern.Grouped(Integer.parseInt(grouped.group(1)), Integer.parseInt(grouped.group(2)));
        }
        return word.equals(PassOption.STRUCTURED) ? new Pattern.Structured(share) : new Pattern.Unstructured(share);
    }

    /** Whether products need biases for what a recipe does. */
    public static boolean needsBiases(Recipe recipe) {
        Pass compensate = recipe.pass(PassKind.COMPENSATE);
        Pass refit = recipe.pass(PassKind.REFIT);
        return compensate != null && compensate.word("update").equals("bias") || refit != null && refit.flag("bias");
    }

    /** Whether a recipe scores units by the products that sum over them. */
    public static boolean comparesConsumers(Recipe recipe) {
        Pass score = recipe.pass(PassKind.SCORE);
        return score != null && Set.of("obs", "wanda", "flap").contains(score.word("metric"));
    }

    /** Whether anything that a recipe does takes systems of equations. */
    public static boolean solves(Recipe recipe) {
        return isObs(recipe.pass(PassKind.SCORE)) || adjusts(recipe);
    }

    /** Whether a stopped run of a recipe can go on where it was: in gradients of the loss by weights. */
    public static boolean resumes(Recipe recipe) {
        Pass score = recipe.pass(PassKind.SCORE);
        return score != null && score.word("metric").equals("taylor");
    }

    /** Whether a stopped run of a recipe can go on after a step of zeros that is done. */
    public static boolean resumesZeros(Recipe recipe) {
        Pass sparsify = recipe.pass(PassKind.SPARSIFY);
        return recipe.pass(PassKind.ALLOCATE) == null
                && isSurgeon(sparsify)
                && surgeon(sparsify).steps() > 1;
    }

    /**
     * Whether a stopped run of a recipe can go on after a step that was done, because data were measured for that and more is to
     * do.
     *
     * @param ratio the share of the parameters that is removed, or the largest that it may be
     */
    public static boolean resumesSteps(Recipe recipe, double ratio) {
        Pass allocate = recipe.pass(PassKind.ALLOCATE);
        return allocate != null
                && needsData(recipe)
                && (steps(allocate, ratio) > 1
                        || recipe.pass(PassKind.REFIT) != null
                        || recipe.pass(PassKind.CORRECT) != null
                        || recipe.pass(PassKind.SPARSIFY) != null);
    }

    /** Whether a {@link PassKind#SCORE} pass asks for {@link io.onnxprune.compensate.ObsImportance}. */
    public static boolean isObs(Pass score) {
        return score != null && score.word("metric").equals("obs");
    }

    /** Whether a {@link PassKind#SCORE} pass chooses units block by block, after their number is known. */
    public static boolean isSequential(Pass score) {
        return score.flag("sequential");
    }

    /** Whether a {@link PassKind#SCORE} pass of metric obs asks for the curvature of the loss. */
    public static boolean isOfLoss(Pass score) {
        return isObs(score) && score.word("curvature").equals("loss") && !isSequential(score);
    }

    /** Whether a {@link PassKind#SCORE} pass of metric obs counts the products that make a unit. */
    public static boolean countsMakers(Pass score) {
        return score.word("members").equals("all");
    }

    /**
     * Refuses options of different passes that do not go together.
     *
     * @throws UsageException naming them
     */
    public static void check(Recipe recipe) {
        if (update(recipe.pass(PassKind.COMPENSATE))
                .filter(update -> update.bias() && update.dense())
                .isPresent()) {
            throw new UsageException("recipe " + recipe.name()
                    + " has compensate target dense, which update bias cannot reach; only update least-squares can");
        }
        Pass sparsify = recipe.pass(PassKind.SPARSIFY);
        if (sparsify != null && isSurgeon(sparsify)) {
            surgeon(sparsify);
        } else if (sparsify != null) {
            sparsification(sparsify);
        }
        if (recipe.pass(PassKind.RECOVER) != null) {
            recovery(recipe.pass(PassKind.RECOVER), 0);
        }
        Pass score = recipe.pass(PassKind.SCORE);
        Pass allocate = recipe.pass(PassKind.ALLOCATE);
        Pass calibrate = recipe.pass(PassKind.CALIBRATE);
        boolean curved = score != null && isOfLoss(score) || sparsify != null && isSurgeon(sparsify);
        if (calibrate != null && calibrate.integer("draws") > 0 && !curved) {
            throw new UsageException(
                    "recipe " + recipe.name() + " has calibrate draws, which only score metric obs with"
                            + " curvature loss and sparsify by surgeon have a use for: gradients of tokens that a model draws are zero on average");
        }
        if (score != null && score.word("members").equals("all") && !isOfLoss(score)) {
            throw new UsageException("recipe " + recipe.name() + " has score members all, which only metric obs with"
                    + " curvature loss can do: costs of products that make a unit are measured by gradients");
        }
        if (score == null || allocate == null || !score.flag("sequential")) {
            return;
        }
        if (score.word("curvature").equals("loss")) {
            throw new UsageException(
                    "recipe " + recipe.name()
                            + " prunes block by block without gradients, so score curvature loss has no effect with sequential");
        }
        if (!Set.of("obs", "wanda").contains(score.word("metric"))) {
            throw new UsageException("recipe " + recipe.name() + " has score sequential, which metric "
                    + score.word("metric") + " cannot do; only metrics obs and wanda can");
        }
        if (allocate.word("scope").equals("global")) {
            throw new UsageException(
                    "recipe " + recipe.name() + " prunes block by block, so every layer must know its share"
                            + " before: scope global has no effect; ask for scope local");
        }
    }

    /** How a {@link PassKind#SCORE} pass of metric obs chooses units. */
    public static Selection selection(Pass score) {
        Choice choice = isObs(score) ? constant(Choice.class, score, "rule") : Choice.WANDA;
        return new Selection(choice, score.number("damping"));
    }

    /** The new weights that a {@link PassKind#COMPENSATE} pass asks for; none without one. */
    public static Optional<Update> update(Pass compensate) {
        return compensate == null || Set.of("none", "kronecker").contains(compensate.word("update"))
                ? Optional.empty()
                : Optional.of(new Update(
                        compensate.word("update").equals("bias"),
                        compensate.number("damping"),
                        compensate.word("target").equals("dense")));
    }

    /** What a {@link PassKind#COMPENSATE} pass of update kronecker asks for; none with another one. */
    public static Optional<KroneckerUpdate.Settings> kronecker(Pass compensate) {
        return compensate == null || !compensate.word("update").equals("kronecker")
                ? Optional.empty()
                : Optional.of(new KroneckerUpdate.Settings(
                        constant(KroneckerUpdate.Sides.class, compensate, "sides"),
                        compensate.flag("together"),
                        compensate.number("damping"),
                        compensate.number("gradient-damping")));
    }

    /** What a {@link PassKind#CORRECT} pass asks for. */
    public static KfacCorrection.Settings correction(Pass correct) {
        return new KfacCorrection.Settings(
                correct.integer("steps"),
                correct.number("damping"),
                correct.word("products").equals("all"));
    }

    /**
     * The training of LLM-Pruner (arXiv 2305.11627, section 4.1 and its repository): adapters, on data, without a teacher.
     */
    public static Pass publishedRecovery() {
        return new Pass(
                PassKind.RECOVER,
                Map.of(
                        "train", "lora",
                        "distill-weight", "0",
                        "dropout", "0.05",
                        "lr", "1e-4",
                        "schedule", "linear",
                        "batch", "64",
                        "epochs", "2",
                        "eval-every", "25"));
    }

    /** The file that a recipe trains on; empty where that is the calibration rows, or it does not train. */
    public static Optional<Path> recoveryData(Recipe recipe) {
        return Optional.ofNullable(recipe.pass(PassKind.RECOVER))
                .map(recover -> recover.word("data"))
                .filter(word -> !word.equals(PassKind.CALIBRATION_ROWS))
                .map(Path::of);
    }

    /**
     * What a {@link PassKind#RECOVER} pass asks for.
     *
     * @throws UsageException if a value is out of range
     */
    public static TrainingOptions recovery(Pass recover, long seed) {
        return new TrainingOptions(
                constant(TrainingOptions.Mode.class, recover, "train"),
                recover.integer("rank"),
                recover.number("alpha"),
                recover.number("dropout"),
                Targets.of(recover.words("targets")),
                recover.number("lr"),
                constant(TrainingOptions.Schedule.class, recover, "schedule"),
                optional(recover, "warmup"),
                recover.number("weight-decay"),
                recover.number("clip"),
                recover.integer("batch"),
                recover.integer("micro-batch"),
                recover.integer("epochs"),
                optional(recover, "steps"),
                recover.integer("eval-every"),
                recover.integer("patience"),
                recover.number("distill-weight"),
                recover.number("temperature"),
                0,
                seed);
    }

    private static OptionalInt optional(Pass pass, String key) {
        return pass.isGiven(key) ? OptionalInt.of(pass.integer(key)) : OptionalInt.empty();
    }

    /** In how many steps an {@link PassKind#ALLOCATE} pass removes {@code ratio} of the parameters. */
    public static int steps(Pass allocate, double ratio) {
        return allocate.isGiven("steps")
                ? allocate.integer("steps")
                : (int) Math.max(1, Math.ceil(ratio / allocate.number("step-ratio") - 1e-9));
    }

    /** The budget of an {@link PassKind#ALLOCATE} pass, with a ratio as its target. */
    public static Budget budget(Pass allocate) {
        return new Budget(
                PruneSet.parse(allocate.words("prune")),
                Budget.Goal.RATIO,
                allocate.number("ratio"),
                constant(Budget.Scope.class, allocate, "scope"),
                constant(Budget.Rank.class, allocate, "rank"),
                constant(Budget.Layout.class, allocate, "layout"),
                allocate.integer("round-to"),
                allocate.integer("round-heads"),
                allocate.words("protect"),
                LayerCount.parse(allocate.word("skip-first")),
                LayerCount.parse(allocate.word("skip-last")),
                new Schedule(
                        constant(Schedule.Shape.class, allocate, "schedule"),
                        allocate.isGiven("first-ratio")
                                ? OptionalDouble.of(allocate.number("first-ratio"))
                                : OptionalDouble.empty()));
    }

    private static <E extends Enum<E>> E constant(Class<E> type, Pass pass, String key) {
        return Enum.valueOf(type, pass.word(key).toUpperCase(Locale.ROOT).replace('-', '_'));
    }
}
