// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import io.onnxprune.compensate.Sparsification;
import io.onnxprune.compiler.PruneReport;
import io.onnxprune.dims.Dimension;
import io.onnxprune.eval.Evaluation;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.PrunableBlocks;
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
        if (report.plan().blocks() != null) {
            row(
                    table,
                    "residual blocks",
                    PrunableBlocks.blocks(report.structure()).size(),
                    report.blocksKept());
        }
        evaluation(table, report);
        console.print(table.toString());
        console.print("");
        Table dimensions = dimensions(report);
        if (!dimensions.isEmpty() || report.zeros().isEmpty()) {
            console.print(dimensions.isEmpty() ? "nothing was removed" : dimensions.toString());
            console.print("");
        }
        report.requested().ifPresent(asked -> console.print(achieved(asked, report)));
        if (report.compensated() > 0) {
            console.print("the weights of " + report.compensated() + " products make up for what was removed");
        }
        if (report.refitted() > 0) {
            console.print("the weights of " + report.refitted()
                    + " products bring the residual stream near to that of the whole model");
        }
        report.correction()
                .ifPresent(found -> console.print(String.format(
                        Locale.ROOT,
                        "%d products were corrected by gradients: divergence from the whole model %.4f -> %.4f nats a token",
                        found.updates().size(),
                        found.before(),
                        found.after())));
        report.recovery()
                .ifPresent(found -> console.print(String.format(
                        Locale.ROOT,
                        "%,d parameters were trained on %,d rows: loss %.4f -> %.4f nats a token",
                        found.trained(),
                        found.rows(),
                        found.first(),
                        found.best())));
        report.zeros().ifPresent(found -> console.print(zeros(found)));
        report.data()
                .map(data -> data.describe(report.evaluationBefore().isPresent()))
                .filter(line -> !line.isEmpty())
                .ifPresent(console::print);
        report.verification().ifPresent(found -> console.print(verification(found)));
        Map<String, Double> seconds = new LinkedHashMap<>();
        report.passes().forEach(pass -> seconds.merge(pass.name(), pass.seconds(), Double::sum));
        console.print(seconds.entrySet().stream()
                .filter(pass -> pass.getValue() >= 0.05)
                .map(pass -> String.format(Locale.ROOT, "%s %.1f s", pass.getKey(), pass.getValue()))
                .collect(Collectors.joining(", ", "time: ", "")));
        if (report.peakResidentBytes() > 0) {
            console.print(String.format(Locale.ROOT, "peak memory: %,d MB", report.peakResidentBytes() >> 20));
        }
        report.emission()
                .ifPresent(found -> console.print(String.format(
                        Locale.ROOT, "wrote %s (%,d bytes)", found.files().get(0), found.modelBytes())));
    }

    /** What was asked for beside what came of it, both in what the target counts. */
    private static String achieved(Budget asked, PruneReport report) {
        if (asked.goal() == Budget.Goal.RATIO) {
            return String.format(
                    Locale.ROOT,
                    "asked to remove %.2f %% of the parameters, removed %.2f %%",
                    100 * asked.amount(),
                    100 * report.ratioAchieved());
        }
        return String.format(
                Locale.ROOT,
                "asked for %,.0f %s, %,d are left",
                asked.amount(),
                asked.unit(),
                asked.measure(report.after()));
    }

    /** Zeros take as much room as any other number. */
    private static String zeros(Sparsification.Zeros found) {
        return String.format(
                Locale.ROOT,
                "%.2f %% of the %,d weights of %d matrices are zero; the file size does not change, and speed only where a"
                        + " runtime looks for zeros",
                100 * found.share(),
                found.weights(),
                found.matrices());
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
            // Of what went with its layer or block the rows below tell.
            boolean changed = dimensions.stream()
                    .mapToInt(report::kept)
                    .anyMatch(kept -> kept > 0 && kept < dimensions.get(0).size());
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
