// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import io.onnxprune.algebra.Blas;
import io.onnxprune.calibrate.CalibrationOptions;
import io.onnxprune.compiler.PruneJob;
import io.onnxprune.compiler.PruneReport;
import io.onnxprune.compiler.Pruner;
import io.onnxprune.diag.UsageException;
import io.onnxprune.diag.UserException;
import io.onnxprune.emit.ModelFolder;
import io.onnxprune.emit.OutputTarget;
import io.onnxprune.eval.DataRequest;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.LayerCount;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.plan.Schedule;
import io.onnxprune.recipe.Pass;
import io.onnxprune.recipe.PassKind;
import io.onnxprune.recipe.PlanPasses;
import io.onnxprune.recipe.Recipe;
import io.onnxprune.runtime.OnnxRuntime;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.ParseResult;
import picocli.CommandLine.Spec;

/** {@code onnx-prune MODEL -o OUT}: writes a smaller model. */
@Command(
        name = "onnx-prune",
        mixinStandardHelpOptions = true,
        versionProvider = Main.Version.class,
        description = "Prunes an exported ONNX language model: reads MODEL and writes a smaller model.",
        footer = {
            "",
            "A model is an .onnx file, or a folder with model.onnx and the other files of its" + " exporter.",
            "Exit codes: 0 done, 1 failed, 2 wrong command line or recipe."
        })
final class PruneCommand implements Callable<Integer> {
    /** The values of {@code --method}. */
    static final class Methods implements Iterable<String> {
        @Override
        public Iterator<String> iterator() {
            return Recipe.bundledNames().iterator();
        }
    }

    /** The values of {@code --prune}. */
    static final class Structures implements Iterable<String> {
        @Override
        public Iterator<String> iterator() {
            return PruneSet.words().iterator();
        }
    }

    private static final String DEFAULT_METHOD = "auto";

    /** Options about the making of a plan. */
    private static final List<String> PLANNING = List.of(
            "--ratio",
            "--params",
            "--size",
            "--prune",
            "--scope",
            "--schedule",
            "--first-ratio",
            "--layout",
            "--round-to",
            "--round-heads",
            "--protect",
            "--skip-first",
            "--skip-last",
            "--steps");

    @Spec
    private CommandSpec spec;

    @Parameters(arity = "0..1", paramLabel = "MODEL", description = "the model to prune; never changed")
    private Path model;

    @Option(
            names = {"-o", "--output"},
            paramLabel = "OUT",
            description = "an .onnx file, or a folder that gets all files needed to serve the model")
    private Path out;

    @Option(
            names = "--method",
            paramLabel = "NAME",
            completionCandidates = Methods.class,
            description = "a bundled recipe: ${COMPLETION-CANDIDATES} (default: " + DEFAULT_METHOD + ")")
    private String method;

    @Option(names = "--recipe", paramLabel = "FILE", description = "a recipe file in place of a bundled recipe")
    private Path recipeFile;

    @Option(
            names = "--ratio",
            paramLabel = "R",
            description = "share of the dense model's parameters to prune (default: 0.2), or the sparsity of"
                    + " methods that only make zeros")
    private String ratio;

    @Option(names = "--params", paramLabel = "N", description = "parameters to keep: 1.1B, 700M, 250000")
    private String parameters;

    @Option(names = "--size", paramLabel = "N", description = "bytes to keep: 900MB, 1.5GB")
    private String size;

    @Option(
            names = "--prune",
            paramLabel = "WHAT",
            completionCandidates = Structures.class,
            description =
                    "structures to prune, separated by commas: ${COMPLETION-CANDIDATES} (default:" + " heads,ffn)")
    private String prune;

    @Option(
            names = "--scope",
            paramLabel = "local|global",
            description = "local: every dimension loses a share; global: one ranking of all units")
    private String scope;

    @Option(
            names = "--schedule",
            paramLabel = "uniform|log|linear",
            description = "for --scope local: equal shares in all layers, or shares that change from the first"
                    + " to the last layer")
    private String schedule;

    @Option(
            names = "--first-ratio",
            paramLabel = "R",
            description = "for --schedule log or linear: the pruned share of the first layer")
    private String firstRatio;

    @Option(
            names = "--layout",
            paramLabel = "per-layer|uniform",
            description = "per-layer: layers may differ in size; uniform: all layers have the same size"
                    + " (default: per-layer; uniform beside a genai_config.json)")
    private String layout;

    @Option(names = "--round-to", paramLabel = "N", description = "keep FFN and hidden widths multiples of N")
    private String roundTo;

    @Option(names = "--round-heads", paramLabel = "N", description = "keep head counts multiples of N")
    private String roundHeads;

    @Option(
            names = "--protect",
            paramLabel = "PATTERN",
            description = "do not prune this, by its name in inspect: ffn.0, heads.*, layers.3, blocks.7; may"
                    + " be repeated")
    private List<String> protect = List.of();

    @Option(names = "--skip-first", paramLabel = "N", description = "do not prune the first N layers: 2, or 12.5%%")
    private String skipFirst;

    @Option(names = "--skip-last", paramLabel = "N", description = "do not prune the last N layers: 1, or 6.25%%")
    private String skipLast;

    @Option(
            names = "--steps",
            paramLabel = "N",
            description = "reach the target in N steps and measure importance anew in each (default: as the"
                    + " recipe says)")
    private String steps;

    @Option(
            names = "--refit",
            negatable = true,
            description = "refit weights to the residual stream of the dense model, or do not (default: as the"
                    + " method says)")
    private Boolean refit;

    @Option(
            names = "--correct",
            paramLabel = "N",
            description = "reduce the KL divergence from the dense model by N steps on the weights; 0 for none"
                    + " (default: as the method says)")
    private Integer correct;

    @Option(names = "--dry-run", description = "make the plan and show it, but write no model")
    private boolean dryRun;

    @Option(names = "--plan-out", paramLabel = "FILE", description = "write the plan (docs/plan-format.md)")
    private Path planOut;

    @Option(names = "--plan", paramLabel = "FILE", description = "apply this plan instead of making one")
    private Path plan;

    @Option(
            names = "--no-verify",
            description =
                    "do not compare the result with the masked model (the original with pruned units" + " zeroed)")
    private boolean noVerify;

    @Option(names = "--external-data", description = "keep weights outside the model file")
    private boolean externalData;

    @Option(names = "--seed", paramLabel = "N", description = "seed of all random numbers (default: 0)")
    private long seed;

    @Option(names = "--dump-ir", paramLabel = "DIR", description = "write the model as text after each pass")
    private Path dumpIr;

    @Mixin
    private StatisticsArguments statistics = new StatisticsArguments();

    @Mixin
    private RecoverArguments recover = new RecoverArguments();

    @Mixin
    private DataArguments data = new DataArguments();

    @Mixin
    private RuntimeArguments runtime = new RuntimeArguments();

    @Mixin
    private OutputArguments output = new OutputArguments();

    @Override
    public Integer call() {
        if (model == null) {
            throw new UsageException("no model was named; onnx-prune MODEL -o OUT (see onnx-prune --help)"
                    + (recover.file() == null
                            ? ""
                            : "; " + recover.file() + " was taken for the data of --recover, so put the model first"));
        }
        if (out == null && !dryRun) {
            throw new UsageException("no output was named; add -o OUT, or --dry-run to see the plan only");
        }
        Console console =
                output.console(spec.commandLine().getOut(), spec.commandLine().getErr());
        Recipe recipe = recipe();
        checkCombination();
        ModelFolder input = ModelFolder.of(model);
        Inputs inputs = data.inputs()
                .with(
                        plan,
                        recipeFile,
                        statistics.read(),
                        PlanPasses.recoveryData(recipe).orElse(null))
                .with(input);
        output.check(inputs);
        inputs.checkWritable("--plan-out", planOut);
        statistics.check(inputs);
        if (dumpIr != null && Files.exists(dumpIr) && !Files.isDirectory(dumpIr)) {
            throw new UserException("--dump-ir " + dumpIr + " is a file; name a folder");
        }
        Optional<OutputTarget> target = dryRun ? Optional.empty() : Optional.of(OutputTarget.of(input, out));
        Budget budget = budget(recipe, input, console);
        boolean nothing =
                recipe.pass(PassKind.ALLOCATE) != null && budget.goal() == Budget.Goal.RATIO && budget.amount() == 0;
        if (recover.isAsked() && nothing && plan == null) {
            throw new UsageException(
                    "--ratio 0 removes nothing, so --recover has no effect; to train a model as it is, use"
                            + " onnx-prune recover");
        }
        statistics.check(recipe, plan != null, nothing);
        PruneJob job = new PruneJob(
                input,
                target,
                recipe,
                budget,
                Optional.ofNullable(plan),
                Optional.ofNullable(planOut),
                externalData,
                request(recipe),
                calibrationOptions(recipe),
                statistics.files(),
                Optional.ofNullable(dumpIr),
                seed,
                runtime.threads());
        Blas.setThreads(runtime.threads());
        try (OnnxRuntime ort = OnnxRuntime.open(runtime.options())) {
            PruneReport report = Pruner.run(job, ort, console);
            PruneSummary.print(report, console);
            output.writeJson(report.toJson());
        }
        return 0;
    }

    private CalibrationOptions calibrationOptions(Recipe recipe) {
        Pass calibrate = recipe.pass(PassKind.CALIBRATE);
        return data.calibrationOptions().withDraws(calibrate == null ? 0 : calibrate.integer("draws"));
    }

    /** Refuses what would have no effect, so that nobody believes that it had one. */
    private void checkCombination() {
        ParseResult given = spec.commandLine().getParseResult();
        if (plan != null) {
            // The method still says what makes up for what goes.
            PLANNING.stream().filter(given::hasMatchedOption).findFirst().ifPresent(option -> {
                throw new UsageException(
                        "--plan says already what to keep, so " + option + " has no effect; leave it out");
            });
        }
    }

    /** The data of the run: as much as the recipe says, unless the command line says otherwise. */
    private DataRequest request(Recipe recipe) {
        boolean measured = statistics.read() != null && PlanPasses.needsOnlyStatistics(recipe, mostRemoved(recipe));
        boolean calibrates = plan == null ? PlanPasses.needsData(recipe) && !measured : PlanPasses.adjusts(recipe);
        boolean resumes = plan == null
                && (PlanPasses.resumes(recipe)
                        || PlanPasses.resumesZeros(recipe)
                        || PlanPasses.resumesSteps(recipe, mostRemoved(recipe)));
        if (calibrates && !resumes && spec.commandLine().getParseResult().hasMatchedOption("--resume")) {
            throw new UsageException(
                    "--resume goes on after a step that is done, or where gradients of weights were left; "
                            + (plan == null
                                    ? recipe.name() + " has one step and takes no such gradients"
                                    : "--plan has no steps")
                            + ", so leave it out");
        }
        DataRequest request =
                data.request(calibrates, PlanPasses.recoveryData(recipe).isPresent(), seed);
        Pass calibrate = recipe.pass(PassKind.CALIBRATE);
        return calibrates && calibrate != null
                ? request.withDefaults(calibrate.integer("samples"), calibrate.integer("seq-len"))
                : request;
    }

    /** The largest share of the parameters that the target may come to. */
    private double mostRemoved(Recipe recipe) {
        Pass allocate = recipe.pass(PassKind.ALLOCATE);
        return allocate == null || parameters != null || size != null ? 1 : allocate.number("ratio");
    }

    private Recipe recipe() {
        if (method != null && recipeFile != null) {
            throw new UsageException("--method and --recipe both name a recipe; give one of them");
        }
        Recipe recipe =
                recipeFile != null ? Recipe.read(recipeFile) : Recipe.bundled(method == null ? DEFAULT_METHOD : method);
        if (recipe.pass(PassKind.ALLOCATE) == null && recipe.pass(PassKind.SPARSIFY) != null) {
            return sparse(recipe);
        }
        recipe = with(recipe, "prune", prune);
        recipe = with(recipe, "ratio", ratio);
        recipe = with(recipe, "scope", scope);
        recipe = with(recipe, "schedule", schedule);
        recipe = with(recipe, "first-ratio", firstRatio);
        recipe = with(recipe, "layout", layout);
        recipe = with(recipe, "round-to", roundTo);
        recipe = with(recipe, "round-heads", roundHeads);
        recipe = with(recipe, "protect", protect.isEmpty() ? null : String.join(",", protect));
        recipe = with(recipe, "skip-first", skipFirst);
        recipe = with(recipe, "skip-last", skipLast);
        recipe = with(recipe, "steps", steps);
        if (spec.commandLine().getParseResult().hasMatchedOption("--seed")) {
            recipe = recipe.with(PassKind.SCORE, "seed", Long.toString(seed));
        }
        if (refit != null) {
            recipe = refit ? recipe.adding(PassKind.REFIT) : recipe.without(PassKind.REFIT);
        }
        recipe = corrected(recipe);
        recipe = recover.applied(recipe, data.sequenceLength());
        PlanPasses.check(recipe);
        return noVerify ? recipe.without(PassKind.VERIFY) : recipe;
    }

    /** A recipe that only makes zeros, with what the command line changes of it. */
    private Recipe sparse(Recipe recipe) {
        ParseResult given = spec.commandLine().getParseResult();
        List<String> pointless = new ArrayList<>(PLANNING);
        pointless.remove("--ratio");
        pointless.addAll(List.of("--refit", "--correct", "--recover", "--plan-out"));
        pointless.stream().filter(given::hasMatchedOption).findFirst().ifPresent(option -> {
            throw new UsageException(option + " has no effect: " + recipe.name()
                    + " removes nothing, it makes weights zero; leave it out, or take another method");
        });
        Recipe changed = recover.applied(with(recipe, PassKind.SPARSIFY, "ratio", ratio), null);
        PlanPasses.check(changed);
        return noVerify ? changed.without(PassKind.VERIFY) : changed;
    }

    private Recipe corrected(Recipe recipe) {
        if (correct == null) {
            return recipe;
        }
        if (correct < 0) {
            throw new UsageException("--correct is a number of steps, 0 or more, not " + correct);
        }
        return correct == 0
                ? recipe.without(PassKind.CORRECT)
                : recipe.adding(PassKind.CORRECT).with(PassKind.CORRECT, "steps", Integer.toString(correct));
    }

    private static Recipe with(Recipe recipe, String key, String value) {
        return with(recipe, PassKind.ALLOCATE, key, value);
    }

    private static Recipe with(Recipe recipe, PassKind kind, String key, String value) {
        try {
            return value == null ? recipe : recipe.with(kind, key, value);
        } catch (UsageException e) {
            // The sentence starts with the key, which is the option without its dashes.
            throw new UsageException("--" + e.getMessage());
        }
    }

    private Budget budget(Recipe recipe, ModelFolder input, Console console) {
        Pass allocate = recipe.pass(PassKind.ALLOCATE);
        if (allocate == null && recipe.pass(PassKind.SPARSIFY) != null) {
            return Budget.ofRatio(PruneSet.standard(), 0);
        }
        if (allocate == null) {
            throw new UsageException("recipe " + recipe.name() + " has no allocate pass, so it cannot make a plan");
        }
        Budget budget = PlanPasses.budget(allocate);
        if ((ratio == null ? 0 : 1) + (parameters == null ? 0 : 1) + (size == null ? 0 : 1) > 1) {
            throw new UsageException("--ratio, --params and --size each set the target; give one of them");
        }
        if (parameters != null) {
            budget = budget.withTarget(Budget.Goal.PARAMETERS, Amount.parameters(parameters));
        } else if (size != null) {
            budget = budget.withTarget(Budget.Goal.BYTES, Amount.bytes(size));
        }
        boolean scalarConfig = input.companion("genai_config.json").isPresent();
        if (scalarConfig && !allocate.isGiven("layout") && plan == null) {
            console.info("genai_config.json has one head count for all layers, so all layers keep equal counts"
                    + " (--layout per-layer to let them differ)");
            budget = budget.withLayout(Budget.Layout.UNIFORM);
        }
        return budget.layout() == Budget.Layout.UNIFORM ? alike(budget, input, console) : budget;
    }

    /**
     * Layers that keep equal counts shrink together, so the ones that a recipe would leave whole, or shrink less, shrink
     * with them.
     */
    private Budget alike(Budget budget, ModelFolder input, Console console) {
        Budget changed = budget;
        boolean scheduled = budget.schedule().shape() != Schedule.Shape.UNIFORM;
        if (scheduled && schedule != null) {
            throw new UsageException("--schedule " + schedule
                    + " has no effect in a uniform layout, where all layers shrink alike; add --layout per-layer");
        }
        LayerCount none = LayerCount.of(0);
        boolean skips = !budget.skipFirst().equals(none) || !budget.skipLast().equals(none);
        if (skips && skipFirst == null && skipLast == null) {
            console.info("in a uniform layout all layers of " + input.model().getFileName()
                    + " shrink alike, also those that the recipe leaves whole otherwise");
            changed = changed.withProtection(budget.protect(), none, none);
        }
        if (scheduled) {
            console.info("in a uniform layout all layers of " + input.model().getFileName()
                    + " shrink alike, so the recipe's schedule " + budget.schedule() + " has no effect");
            changed = changed.withSchedule(Schedule.uniform());
        }
        return changed;
    }
}
