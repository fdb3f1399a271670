package io.onnxprune.cli;

import io.onnxprune.compiler.PruneReport;
import io.onnxprune.dims.Dimension;
import io.onnxprune.eval.Evaluation;
import io.onnxprune.verify.Verifier.Verification;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.OptionalDouble;
import java.util.stream.Collectors;

/** The table at the end of a run. */
final class PruneSummary {
    private PruneSummary() {}

    static void print(PruneReport report, Console console) {
        Table table = new Table("", ">before", ">after", ">change");
        row(table, "parameters", report.before().parameters(), report.after().parameters());
        row(table, "weight bytes", report.before().bytes(), report.after().bytes());
        row(table, "layers", report.structure().stream().layers(), report.layersKept());
        evaluation(table, report);
        console.print(table.toString());
        console.print("");
        Table dimensions = dimensions(report);
        console.print(dimensions.isEmpty() ? "nothing was removed" : dimensions.toString());
        console.print("");
        report.ratioRequested()
                .ifPresent(asked -> console.print(String.format(
                        Locale.ROOT,
                        "asked to remove %.2f %%, removed %.2f %%",
                        100 * asked,
                        100 * report.ratioAchieved())));
        report.verification().ifPresent(found -> console.print(verification(found)));
        console.print(report.passes().stream()
                .filter(pass -> pass.seconds() >= 0.05)
                .map(pass -> String.format(Locale.ROOT, "%s %.1f s", pass.name(), pass.seconds()))
                .collect(Collectors.joining(", ", "time: ", "")));
        if (report.peakResidentBytes() > 0) {
            console.print(String.format(Locale.ROOT, "peak memory: %,d MB", report.peakResidentBytes() >> 20));
        }
        report.emission()
                .ifPresent(found -> console.print(String.format(
                        Locale.ROOT, "wrote %s (%,d bytes)", found.files().get(0), found.modelBytes())));
    }

    private static void row(Table table, String name, long before, long after) {
        table.row(
                name,
                String.format(Locale.ROOT, "%,d", before),
                String.format(Locale.ROOT, "%,d", after),
                change((double) before, (double) after));
    }

    private static String change(double before, double after) {
        return before == 0 ? "" : String.format(Locale.ROOT, "%+.1f %%", 100 * (after - before) / before);
    }

    private static void evaluation(Table table, PruneReport report) {
        if (report.evaluationBefore().isEmpty() || report.evaluationAfter().isEmpty()) {
            return;
        }
        Evaluation before = report.evaluationBefore().get();
        Evaluation after = report.evaluationAfter().get();
        measured(table, "perplexity", OptionalDouble.of(before.perplexity()), OptionalDouble.of(after.perplexity()), 3);
        measured(table, "prefill tokens/s", before.prefillTokensPerSecond(), after.prefillTokensPerSecond(), 0);
        measured(table, "decode tokens/s", before.decodeTokensPerSecond(), after.decodeTokensPerSecond(), 0);
    }

    private static void measured(Table table, String name, OptionalDouble before, OptionalDouble after, int digits) {
        if (before.isPresent() && after.isPresent()) {
            String format = "%,." + digits + "f";
            table.row(
                    name,
                    String.format(Locale.ROOT, format, before.getAsDouble()),
                    String.format(Locale.ROOT, format, after.getAsDouble()),
                    change(before.getAsDouble(), after.getAsDouble()));
        }
    }

    /** One row for each role and size: how many units every layer keeps. */
    private static Table dimensions(PruneReport report) {
        Map<String, List<Dimension>> byRole = new LinkedHashMap<>();
        for (Dimension dimension : report.structure().dimensions()) {
            byRole.computeIfAbsent(dimension.role().title() + " of " + dimension.size(), key -> new ArrayList<>())
                    .add(dimension);
        }
        Table table = new Table("kept", "by layer");
        byRole.forEach((title, dimensions) -> {
            boolean changed = dimensions.stream().anyMatch(dimension -> report.kept(dimension) < dimension.size());
            if (changed) {
                table.row(
                        title,
                        dimensions.stream()
                                .map(dimension -> Integer.toString(report.kept(dimension)))
                                .collect(Collectors.joining(" ")));
            }
        });
        if (report.plan().layers() != null) {
            table.row("layers", join(report.plan().layers()));
        }
        if (report.plan().blocks() != null) {
            table.row("residual blocks", join(report.plan().blocks()));
        }
        return table;
    }

    private static String join(int[] numbers) {
        return java.util.Arrays.stream(numbers).mapToObj(Integer::toString).collect(Collectors.joining(" "));
    }

    private static String verification(Verification found) {
        String decode = found.decodeMaxAbsDiff().isPresent()
                ? String.format(
                        Locale.ROOT,
                        ", cached decode step %.2g",
                        found.decodeMaxAbsDiff().getAsDouble())
                : "";
        return String.format(
                Locale.ROOT,
                "verified on %d tokens against the original with the removed parts zeroed: largest difference %.2g%s"
                        + " (logits up to %.1f)",
                found.tokens(),
                found.maxAbsDiff(),
                decode,
                found.scale());
    }
}
