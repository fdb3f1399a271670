// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import io.onnxprune.api.Figure;
import io.onnxprune.api.PruneReport;
import io.onnxprune.api.VocabularyReport;
import io.onnxprune.dims.Dimension;
import io.onnxprune.pass.ReportEntry;
import io.onnxprune.plan.Budget;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.stream.Collectors;

/** The summary at the end of a run. */
final class PruneSummary {
    private PruneSummary() {}

    static void print(PruneReport report, Console console) {
        Table table = new Table("", ">before", ">after", ">change");
        Figure.of(report).forEach(figure -> table.row(figure.name(), figure.before(), figure.after(), figure.change()));
        console.print(table);
        console.print("");
        Table dimensions = dimensions(report);
        if (!dimensions.isEmpty() || !report.state().report().containsKey("zeros")) {
            if (dimensions.isEmpty()) {
                console.print("nothing was pruned");
            } else {
                console.print(dimensions);
            }
            console.print("");
        }
        report.sizes().requested().ifPresent(requested -> console.print(achieved(requested, report)));
        report.vocabulary().map(PruneSummary::tokens).ifPresent(console::print);
        List<ReportEntry> entries = report.entries();
        entries.stream().filter(entry -> !isVerification(entry)).forEach(entry -> console.print(entry.sentence()));
        report.evaluations()
                .data()
                .map(data -> data.describe(measure(report)))
                .filter(line -> !line.isEmpty())
                .ifPresent(console::print);
        entries.stream().filter(PruneSummary::isVerification).forEach(entry -> console.print(entry.sentence()));
        printEffort(report, console);
        report.emission()
                .ifPresent(found -> console.print(String.format(
                        Locale.ROOT,
                        "wrote %s (%,d bytes)",
                        Console.shown(found.files().get(0)),
                        found.modelBytes())));
    }

    /** What became of the tokens, as a sentence. */
    private static String tokens(VocabularyReport found) {
        String growth = found.text()
                .map(text ->
                        String.format(Locale.ROOT, "; held-out text takes %+.1f %% tokens", 100 * (text.growth() - 1)))
                .orElse("");
        String difference = found.maxAbsDiff().isPresent()
                ? String.format(
                        Locale.ROOT,
                        "; their logits differ from the original's by at most %.2g",
                        found.maxAbsDiff().getAsDouble())
                : "";
        return String.format(
                Locale.ROOT,
                "%,d of %,d tokens stay, %,d of them needed for any text%s%s",
                found.after(),
                found.before(),
                found.required(),
                growth,
                difference);
    }

    /** What was measured on held-out rows; empty for nothing. */
    private static String measure(PruneReport report) {
        return report.evaluations().before().isPresent()
                ? "perplexity"
                : report.evaluations().similarity().isPresent() ? "cosine" : "";
    }

    /** Time of the passes that took any, and memory. */
    private static void printEffort(PruneReport report, Console console) {
        Map<String, Double> seconds = new LinkedHashMap<>();
        report.effort().passes().forEach(pass -> seconds.merge(pass.name(), pass.seconds(), Double::sum));
        console.print(seconds.entrySet().stream()
                .filter(pass -> pass.getValue() >= 0.05)
                .map(pass -> String.format(Locale.ROOT, "%s %.1f s", pass.getKey(), pass.getValue()))
                .collect(Collectors.joining(", ", "time: ", "")));
        if (report.effort().peakResidentBytes() > 0) {
            console.print(String.format(
                    Locale.ROOT, "peak memory: %,d MB", report.effort().peakResidentBytes() >> 20));
        }
    }

    /** The requested and the achieved size, in the measure of the target. */
    private static String achieved(Budget requested, PruneReport report) {
        if (report.sizes().reached().isPresent()) {
            return report.sizes().reached().get().sentence();
        }
        if (requested.goal() == Budget.Goal.RATIO) {
            return String.format(
                    Locale.ROOT,
                    "asked to prune %.2f %% of the parameters, pruned %.2f %%",
                    100 * requested.amount(),
                    100 * report.ratioAchieved());
        }
        return String.format(
                Locale.ROOT,
                "asked to keep %s, kept %s",
                requested.currency().text(requested.amount()),
                requested.currency().number(requested.measure(report.sizes().after())));
    }

    /** Whether an entry is the verification, which is printed last. */
    private static boolean isVerification(ReportEntry entry) {
        return entry.key().equals("verification");
    }

    /** One row for each role and size, with the number of kept units of each layer. */
    private static Table dimensions(PruneReport report) {
        Map<String, List<Dimension>> byRole = new LinkedHashMap<>();
        for (Dimension dimension : report.structure().dimensions()) {
            byRole.computeIfAbsent(dimension.role().title() + " of " + report.size(dimension), key -> new ArrayList<>())
                    .add(dimension);
        }
        Table table = new Table("kept", "by layer");
        byRole.forEach((title, dimensions) -> {
            // Dimensions of pruned layers and blocks are covered by the rows below.
            boolean changed = dimensions.stream()
                    .mapToInt(report::kept)
                    .anyMatch(kept -> kept > 0 && kept < report.size(dimensions.get(0)));
            if (changed) {
                table.row(
                        title,
                        dimensions.stream()
                                .map(dimension ->
                                        report.kept(dimension) == 0 ? "-" : Integer.toString(report.kept(dimension)))
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
}
