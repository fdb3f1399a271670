// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.onnxprune.api.Pruner;
import io.onnxprune.api.RecipeSettings;
import io.onnxprune.api.Sweep;
import io.onnxprune.api.SweepReport;
import io.onnxprune.api.SweepReport.Point;
import io.onnxprune.api.SweepReport.Size;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import io.onnxprune.diag.WholeFile;
import io.onnxprune.emit.RunFiles;
import io.onnxprune.eval.Evaluation;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.OptionalDouble;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code onnx-prune sweep}: prunes by several methods and ratios, and measures every result. */
@Command(
        name = "sweep",
        mixinStandardHelpOptions = true,
        versionProvider = Main.Version.class,
        description =
                "Prunes a model by several methods and ratios, and measures parameters, perplexity and speed of every"
                        + " result. Runs share what they have in common.",
        footer = {"", "Exit codes: 0 done, 1 failed, or some of the runs did, 2 wrong command line."})
final class SweepCommand implements Callable<Integer> {
    /** Which results are kept, by their names on the command line. */
    enum Kept {
        all,
        pareto,
        none
    }

    @Spec
    private CommandSpec spec;

    @Parameters(paramLabel = "MODEL", description = "the model to prune; never changed")
    private Path model;

    @Option(
            names = "--ratios",
            required = true,
            paramLabel = "LIST",
            description = "shares of the parameters to prune: 0.1:0.6:0.1 (from:to:step), 0.2, or several of these"
                    + " separated by commas")
    private String ratios;

    @Option(
            names = "--methods",
            split = ",",
            paramLabel = "NAME",
            completionCandidates = PruneCommand.Methods.class,
            description = "bundled recipes, separated by commas (default: " + RecipeSettings.DEFAULT_METHOD + ")")
    private List<String> methods = List.of(RecipeSettings.DEFAULT_METHOD);

    @Option(
            names = "--prune",
            paramLabel = "WHAT",
            description = "structures to prune, as for onnx-prune (default: as the methods say)")
    private String prune;

    @Option(names = "--layout", paramLabel = "per-layer|uniform", description = "as for onnx-prune")
    private String layout;

    @Option(names = "--no-verify", description = "do not compare results with the masked model")
    private boolean noVerify;

    @Option(names = "--seed", paramLabel = "N", description = "seed of all random numbers (default: 0)")
    private Long seed;

    @Option(
            names = {"-o", "--output"},
            paramLabel = "DIR",
            description = "a new folder for the models that are kept, each in a folder METHOD-RATIO")
    private Path out;

    @Option(
            names = "--keep",
            paramLabel = "all|pareto|none",
            description = "the models to keep; pareto: those that no other one has both fewer parameters and a lower"
                    + " perplexity than (default: pareto with -o, else none)")
    private Kept keep;

    @Option(
            names = "--svg",
            paramLabel = "FILE",
            description = "draw perplexity over parameters and over the time of a prompt")
    private Path svg;

    @Mixin
    private FolderArguments folder = new FolderArguments();

    @Mixin
    private DataArguments data = new DataArguments();

    @Mixin
    private RuntimeArguments runtime = new RuntimeArguments();

    @Mixin
    private PrecisionArguments precision = new PrecisionArguments();

    @Mixin
    private OutputArguments output = new OutputArguments();

    @Override
    public Integer call() {
        Console console =
                output.console(spec.commandLine().getOut(), spec.commandLine().getErr());
        Sweep sweep = sweep();
        RunFiles files = sweep.files();
        if (svg != null) {
            files.writes("--svg", svg);
        }
        output.check(files);
        files.check();
        SideFile.check("--svg", svg, SweepCommand::isSvg, "is no SVG");
        SweepReport report = sweep.run(console);
        console.print(table(report));
        report.points()
                .forEach(point -> point.failure()
                        .ifPresent(reason -> console.warn("%s at ratio %s failed: %s"
                                .formatted(point.method(), Double.toString(point.ratio()), reason))));
        output.writeJson(report.toJson());
        draw(report, console);
        return report.failures() == 0 ? 0 : 1;
    }

    private Sweep sweep() {
        Sweep.Builder builder = Sweep.builder(model)
                .ratios(Ratios.parse(ratios))
                .methods(methods)
                .each(this::describe);
        Kept kept = keep != null ? keep : out == null ? Kept.none : Kept.pareto;
        builder.keep(Sweep.Keep.valueOf(kept.name().toUpperCase(Locale.ROOT)));
        if (out != null) {
            builder.output(out);
        }
        return builder.build();
    }

    private void describe(Pruner.Builder builder) {
        builder.runtime(precision.of(runtime.options())).recipe(recipe -> {
            recipe.verify(!noVerify);
            if (prune != null) {
                recipe.allocate("prune", prune);
            }
            if (layout != null) {
                recipe.allocate("layout", layout);
            }
        });
        data.describe(builder);
        folder.describe(builder, spec.commandLine().getParent().getParseResult().originalArgs());
        if (seed != null) {
            builder.seed(seed);
        }
    }

    private static Table table(SweepReport report) {
        Table table = new Table(
                "method",
                ">ratio",
                ">parameters",
                ">pruned",
                ">perplexity",
                ">prompt ms",
                ">decode tok/s",
                ">weight bytes",
                "pareto");
        report.dense().ifPresent(dense -> row(table, "dense", "", "", dense, ""));
        for (Point point : report.points()) {
            String ratio = Double.toString(point.ratio());
            if (point.model().isEmpty()) {
                table.row(point.method(), ratio, "failed", "", "", "", "", "", "");
            } else {
                String pruned = number(report.pruned(point), 100, "%.2f %%");
                row(table, point.method(), ratio, pruned, point.model().get(), report.isPareto(point) ? "*" : "");
            }
        }
        return table;
    }

    private static void row(Table table, String name, String ratio, String pruned, Size size, String pareto) {
        OptionalDouble decode =
                size.evaluation().map(Evaluation::decodeTokensPerSecond).orElse(OptionalDouble.empty());
        table.row(
                name,
                ratio,
                String.format(Locale.ROOT, "%,d", size.parameters()),
                pruned,
                number(size.perplexity(), 1, "%,.4f"),
                number(size.prefillMillis(), 1, "%,.2f"),
                number(decode, 1, "%,.0f"),
                String.format(Locale.ROOT, "%,d", size.bytes()),
                pareto);
    }

    private static String number(OptionalDouble value, double scale, String format) {
        return value.isPresent() ? String.format(Locale.ROOT, format, scale * value.getAsDouble()) : "-";
    }

    private void draw(SweepReport report, Console console) {
        if (svg == null) {
            return;
        }
        String picture = report.toSvg();
        if (picture.isEmpty()) {
            console.warn("--svg draws nothing, because no perplexity was measured");
            return;
        }
        try {
            WholeFile.write(svg, picture.getBytes(UTF_8));
        } catch (IOException e) {
            throw new UserException("cannot write " + svg + ": " + FileFailure.reason(e), e);
        }
    }

    private static boolean isSvg(Path file) {
        try {
            String content = Files.readString(file);
            return content.isEmpty() || content.startsWith("<svg");
        } catch (IOException e) {
            return false;
        }
    }
}
