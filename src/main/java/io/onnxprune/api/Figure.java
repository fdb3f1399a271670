// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import io.onnxprune.api.VocabularyReport.HeldOut;
import io.onnxprune.eval.Evaluation;
import io.onnxprune.eval.Similarity;
import io.onnxprune.plan.ParameterCount;
import io.onnxprune.plan.PrunableBlocks;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.OptionalDouble;

/**
 * One number before and after pruning, as text.
 *
 * @param change in percent; empty where a percentage says nothing
 */
public record Figure(String name, String before, String after, String change) {
    /** The numbers that a run found out. */
    public static List<Figure> of(PruneReport report) {
        List<Figure> all = new ArrayList<>();
        ParameterCount.Size before = report.sizes().before();
        ParameterCount.Size after = report.sizes().after();
        all.add(counted("parameters", before.parameters(), after.parameters()));
        all.add(counted("weight bytes", before.bytes(), after.bytes()));
        all.add(counted("layers", report.structure().stream().layers(), report.layersKept()));
        if (report.plan().blocks() != null) {
            int blocks = PrunableBlocks.blocks(report.structure()).size();
            all.add(counted("residual blocks", blocks, report.blocksKept()));
        }
        report.vocabulary().ifPresent(found -> all.add(counted("tokens", found.before(), found.after())));
        report.evaluations().similarity().ifPresent(found -> all.addAll(similar(found)));
        if (report.evaluations().before().isPresent()
                && report.evaluations().after().isPresent()) {
            all.addAll(evaluated(
                    report.evaluations().before().get(),
                    report.evaluations().after().get(),
                    report.vocabulary().flatMap(VocabularyReport::text)));
        }
        return all;
    }

    private static List<Figure> similar(Similarity found) {
        return List.of(
                new Figure("cosine of pooled outputs", "1", String.format(Locale.ROOT, "%.4f", found.pooled()), ""),
                new Figure("cosine of outputs", "1", String.format(Locale.ROOT, "%.4f", found.cosine()), ""));
    }

    private static List<Figure> evaluated(Evaluation before, Evaluation after, Optional<HeldOut> text) {
        List<Figure> all = new ArrayList<>();
        text.ifPresent(found -> measured(
                all,
                "perplexity per byte",
                OptionalDouble.of(found.perplexityBefore()),
                OptionalDouble.of(found.perplexityAfter()),
                "%,.4f"));
        measured(
                all,
                text.isPresent() ? "perplexity per token" : "perplexity",
                OptionalDouble.of(before.perplexity()),
                OptionalDouble.of(after.perplexity()),
                "%,.3f");
        measured(all, "prefill tokens/s", before.prefillTokensPerSecond(), after.prefillTokensPerSecond(), "%,.0f");
        measured(all, "decode tokens/s", before.decodeTokensPerSecond(), after.decodeTokensPerSecond(), "%,.0f");
        return all;
    }

    private static void measured(
            List<Figure> all, String name, OptionalDouble before, OptionalDouble after, String format) {
        if (before.isPresent() && after.isPresent()) {
            double old = before.getAsDouble();
            double now = after.getAsDouble();
            all.add(new Figure(
                    name,
                    String.format(Locale.ROOT, format, old),
                    String.format(Locale.ROOT, format, now),
                    change(old, now)));
        }
    }

    private static Figure counted(String name, long before, long after) {
        return new Figure(
                name,
                String.format(Locale.ROOT, "%,d", before),
                String.format(Locale.ROOT, "%,d", after),
                change((double) before, (double) after));
    }

    private static String change(double before, double after) {
        return before == 0 ? "" : String.format(Locale.ROOT, "%+.1f %%", 100 * (after - before) / before);
    }
}
