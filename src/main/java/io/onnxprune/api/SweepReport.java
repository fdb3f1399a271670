// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import io.onnxprune.eval.EvalOptions;
import io.onnxprune.eval.Evaluation;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;
import org.jspecify.annotations.Nullable;

/**
 * The result of a sweep.
 *
 * @param dense the model before pruning; empty if no run got so far
 * @param points of all methods and ratios, in the order of the runs
 */
public record SweepReport(Optional<Size> dense, List<Point> points) {
    /**
     * A model and what was measured on it.
     *
     * @param evaluation on the held-out rows; empty where there is no loss
     */
    public record Size(long parameters, long bytes, Optional<Evaluation> evaluation) {
        /** Milliseconds of a prompt of {@value EvalOptions#DEFAULT_PROMPT} tokens; empty where it was not measured. */
        public OptionalDouble prefillMillis() {
            OptionalDouble speed =
                    evaluation.map(Evaluation::prefillTokensPerSecond).orElse(OptionalDouble.empty());
            return speed.isPresent()
                    ? OptionalDouble.of(1000 * EvalOptions.DEFAULT_PROMPT / speed.getAsDouble())
                    : speed;
        }

        /** Perplexity on the held-out rows; empty where there is no loss. */
        public OptionalDouble perplexity() {
            return evaluation
                    .map(found -> OptionalDouble.of(found.perplexity()))
                    .orElse(OptionalDouble.empty());
        }
    }

    /**
     * One run.
     *
     * @param ratio the share of the parameters that was to be pruned
     * @param model the result; empty for a run that failed
     * @param file the model's file; empty where it was not kept
     * @param failure why the run failed; empty if it did not
     * @param sharedPasses number of passes whose result came from an earlier run
     * @param seconds of the run
     */
    public record Point(
            String method,
            double ratio,
            Optional<Size> model,
            Optional<Path> file,
            Optional<String> failure,
            int sharedPasses,
            double seconds) {
        Point withFile(Optional<Path> changed) {
            return new Point(method, ratio, model, changed, failure, sharedPasses, seconds);
        }
    }

    public SweepReport {
        points = List.copyOf(points);
    }

    /** Number of runs that failed. */
    public long failures() {
        return points.stream().filter(point -> point.failure.isPresent()).count();
    }

    /** Whether no other result has both fewer parameters and a lower perplexity, or one of them and the same of the other. */
    public boolean isPareto(Point point) {
        if (point.model.isEmpty() || point.model.get().perplexity().isEmpty()) {
            return false;
        }
        Size own = point.model.get();
        return points.stream()
                .flatMap(other -> other.model.stream())
                .filter(other -> other.perplexity().isPresent())
                .noneMatch(other -> isBetter(other, own));
    }

    private static boolean isBetter(Size other, Size own) {
        double one = other.perplexity().getAsDouble();
        double two = own.perplexity().getAsDouble();
        return other.parameters <= own.parameters && one <= two && (other.parameters < own.parameters || one < two);
    }

    /** Share of the dense model's parameters that a result lacks. */
    public OptionalDouble pruned(Point point) {
        return dense.isPresent() && point.model.isPresent()
                ? OptionalDouble.of(1
                        - (double) point.model.get().parameters() / dense.get().parameters())
                : OptionalDouble.empty();
    }

    /**
     * A picture (SVG) of perplexity over parameters and over the time of a prompt; empty where no perplexity was measured.
     */
    public String toSvg() {
        return SweepPicture.of(this);
    }

    /** The stable form for machines; see docs/json.md. */
    public Map<String, Object> toJson() {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("dense", dense.map(SweepReport::json).orElse(null));
        List<Map<String, Object>> all = new ArrayList<>();
        for (Point point : points) {
            Map<String, Object> entry = new LinkedHashMap<>();
            entry.put("method", point.method);
            entry.put("ratio_requested", point.ratio);
            entry.put("ratio_achieved", orNull(pruned(point)));
            entry.put("model", point.model.map(SweepReport::json).orElse(null));
            entry.put("pareto", isPareto(point));
            entry.put("file", point.file.map(Path::toString).orElse(null));
            entry.put("failure", point.failure.orElse(null));
            entry.put("shared_passes", point.sharedPasses);
            entry.put("seconds", point.seconds);
            all.add(entry);
        }
        json.put("points", all);
        json.put("failures", failures());
        return json;
    }

    private static Map<String, Object> json(Size size) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("parameters", size.parameters);
        json.put("bytes", size.bytes);
        json.put("perplexity", orNull(size.perplexity()));
        json.put("nll", size.evaluation.map(Evaluation::nll).orElse(null));
        json.put("prefill_milliseconds", orNull(size.prefillMillis()));
        json.put(
                "prefill_tokens_per_second",
                orNull(size.evaluation.map(Evaluation::prefillTokensPerSecond).orElse(OptionalDouble.empty())));
        json.put(
                "decode_tokens_per_second",
                orNull(size.evaluation.map(Evaluation::decodeTokensPerSecond).orElse(OptionalDouble.empty())));
        return json;
    }

    private static @Nullable Double orNull(OptionalDouble value) {
        return value.isPresent() ? value.getAsDouble() : null;
    }
}
