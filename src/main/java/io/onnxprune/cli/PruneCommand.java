// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import io.onnxprune.api.PruneReport;
import io.onnxprune.api.Pruner;
import io.onnxprune.api.RecipeSettings;
import io.onnxprune.diag.UsageException;
import io.onnxprune.diag.UserException;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.recipe.Recipe;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.ParseResult;
import picocli.CommandLine.Spec;

/** {@code onnx-prune MODEL -o OUT}: prunes a model. */
@Command(
        name = "onnx-prune",
        mixinStandardHelpOptions = true,
        versionProvider = Main.Version.class,
        description = "Prunes an exported ONNX language model: reads MODEL and writes a smaller model.",
        footer = {
            "",
            "A model is an .onnx file, or a folder with model.onnx or onnx/model.onnx and the other files of its"
                    + " exporter.",
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

    private static final String DEFAULT_METHOD = RecipeSettings.DEFAULT_METHOD;

    /** The options that determine a plan. */
    private static final List<String> PLANNING = List.of(
            "--ratio",
            "--params",
            "--size",
            "--memory-target",
            "--context",
            "--latency",
            "--speedup",
            "--latency-of",
            "--prune",
            "--vocabulary-keep",
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

    @Mixin
    private TargetArguments target = new TargetArguments();

    @Option(
            names = "--prune",
            paramLabel = "WHAT",
            completionCandidates = Structures.class,
            description =
                    "structures to prune, separated by commas: ${COMPLETION-CANDIDATES} (default:" + " heads,ffn)")
    private String prune;

    @Option(
            names = "--vocabulary-keep",
            paramLabel = "FILE",
            description = "for --prune vocabulary: the tokens to keep, one token or id a line, or a JSON list of tokens"
                    + " (texts) and ids (numbers); special tokens and single bytes stay anyway (default: the tokens that"
                    + " --calibration uses most; without a target all that it uses)")
    private Path vocabularyKeep;

    @Option(
            names = "--scope",
            paramLabel = "local|global",
            description = "local: every dimension is pruned by its own ratio; global: one ranking of all units")
    private String scope;

    @Option(
            names = "--schedule",
            paramLabel = "uniform|log|linear",
            description = "for --scope local: equal ratios in all layers, or ratios that change from the first"
                    + " to the last layer")
    private String schedule;

    @Option(
            names = "--first-ratio",
            paramLabel = "R",
            description = "for --schedule log or linear: the pruning ratio of the first layer")
    private String firstRatio;

    @Option(
            names = "--layout",
            paramLabel = "per-layer|uniform",
            description = "per-layer: layers may differ in size; uniform: all layers have the same size"
                    + " (default: per-layer)")
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
            description = "reach the target in N steps and measure importance again in each (default: as the"
                    + " recipe says)")
    private Integer steps;

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
                    "do not compare the result with the masked model (the dense model with pruned units set to zero)")
    private boolean noVerify;

    @Option(names = "--external-data", description = "keep weights outside the model file")
    private boolean externalData;

    @Option(
            names = "--last-logits",
            description = "write a model that gives logits of the last position only, as generation needs them; its"
                    + " prefill is faster")
    private boolean lastLogits;

    @Option(names = "--seed", paramLabel = "N", description = "seed of all random numbers (default: 0)")
    private long seed;

    @Option(names = "--dump-ir", paramLabel = "DIR", description = "write the model as text after each pass")
    private Path dumpIr;

    @Mixin
    private FolderArguments folder = new FolderArguments();

    @Mixin
    private StatisticsArguments statistics = new StatisticsArguments();

    @Mixin
    private RecoverArguments recover = new RecoverArguments();

    @Mixin
    private DataArguments data = new DataArguments();

    @Mixin
    private RuntimeArguments runtime = new RuntimeArguments();

    @Mixin
    private PrecisionArguments precision = new PrecisionArguments();

    @Mixin
    private OutputArguments output = new OutputArguments();

    @Option(
            names = "--extensions",
            split = ",",
            paramLabel = "JAR",
            description =
                    "jars with passes, metrics and other parts of your own, separated by commas (docs/writing-passes.md)")
    private List<Path> extensions = List.of();

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
        checkCombination();
        Pruner pruner = pruner();
        output.check(pruner.files());
        checkOutputs();
        PruneReport report = pruner.run(console);
        PruneSummary.print(report, console);
        output.writeJson(report.toJson());
        return 0;
    }

    private Pruner pruner() {
        Pruner.Builder builder = Pruner.builder(model)
                .externalData(externalData)
                .lastLogits(lastLogits)
                .statistics(statistics.files())
                .runtime(precision.of(runtime.options()))
                .recipe(this::describe);
        data.describe(builder);
        folder.describe(builder, spec.commandLine().getParseResult().originalArgs());
        if (out != null) {
            builder.output(out);
        }
        if (dryRun) {
            builder.dryRun();
        }
        if (vocabularyKeep != null) {
            builder.vocabularyKeep(vocabularyKeep);
        }
        if (plan != null) {
            builder.plan(plan);
        }
        if (planOut != null) {
            builder.planOut(planOut);
        }
        if (dumpIr != null) {
            builder.dumpIr(dumpIr);
        }
        if (spec.commandLine().getParseResult().hasMatchedOption("--seed")) {
            builder.seed(seed);
        }
        return builder.build();
    }

    private void describe(RecipeSettings recipe) {
        recipe.extensions(extensions).verify(!noVerify);
        if (method != null) {
            recipe.method(method);
        }
        if (recipeFile != null) {
            recipe.recipe(recipeFile);
        }
        allocation().forEach(recipe::allocate);
        if (steps != null) {
            recipe.steps(steps);
        }
        if (refit != null) {
            recipe.refit(refit);
        }
        if (correct != null) {
            recipe.correct(correct);
        }
        recover.describe(recipe);
    }

    /** The given options of allocation, by their recipe keys. */
    private Map<String, String> allocation() {
        Map<String, String> given = target.given();
        given.put("prune", prune);
        given.put("scope", scope);
        given.put("schedule", schedule);
        given.put("first-ratio", firstRatio);
        given.put("layout", layout);
        given.put("round-to", roundTo);
        given.put("round-heads", roundHeads);
        given.put("protect", protect.isEmpty() ? null : String.join(",", protect));
        given.put("skip-first", skipFirst);
        given.put("skip-last", skipLast);
        given.values().removeIf(value -> value == null);
        return given;
    }

    private void checkOutputs() {
        SideFile.check("--plan-out", planOut);
        statistics.check();
        if (dumpIr != null && Files.exists(dumpIr) && !Files.isDirectory(dumpIr)) {
            throw new UserException("--dump-ir " + dumpIr + " is a file; name a folder");
        }
    }

    /** Rejects options that would have no effect, so that nobody relies on them. */
    private void checkCombination() {
        ParseResult given = spec.commandLine().getParseResult();
        if (plan != null) {
            // --method is allowed, because it determines how weights compensate.
            PLANNING.stream().filter(given::hasMatchedOption).findFirst().ifPresent(option -> {
                throw new UsageException(
                        "--plan already determines the kept units, so " + option + " has no effect; leave it out");
            });
        }
    }
}
