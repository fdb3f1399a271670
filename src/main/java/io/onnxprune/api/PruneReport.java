// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import io.onnxprune.diag.PassClock.PassTime;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.ResidualStream.Block;
import io.onnxprune.dims.Role;
import io.onnxprune.dims.Structure;
import io.onnxprune.emit.Emitter;
import io.onnxprune.eval.CalibrationData;
import io.onnxprune.eval.Evaluation;
import io.onnxprune.eval.Similarity;
import io.onnxprune.pass.PruningState;
import io.onnxprune.pass.ReportEntry;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.ParameterCount;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.PrunableBlocks;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * The result of a run.
 *
 * @param state after the last pass
 * @param sizes of the model before and after
 * @param emission the files that were written; empty for a dry run
 * @param evaluations of the model before and after
 * @param effort time and memory
 * @param vocabulary what became of the tokens; empty where none were to go. All else is about the model that has the kept
 *     tokens, except for the sizes and the evaluation before
 */
public record PruneReport(
        PruningState state,
        Sizes sizes,
        Optional<Emitter.Emission> emission,
        Evaluations evaluations,
        Effort effort,
        Optional<VocabularyReport> vocabulary,
        long seed) {
    /**
     * Sizes of the model.
     *
     * @param before the dense model
     * @param after the pruned model
     * @param gone names of the dimensions that were pruned with their block or layer
     * @param requested the target; empty where a plan was given, or nothing was to be pruned but only to become zero
     * @param reached what became of a target of memory or time; empty for others
     */
    public record Sizes(
            ParameterCount.Size before,
            ParameterCount.Size after,
            Set<String> gone,
            Optional<Budget> requested,
            Optional<ReachedTarget> reached) {}

    /**
     * Evaluations of the model.
     *
     * @param data the rows that were calibrated and evaluated on; empty without data
     * @param before empty without data, or for a dry run
     * @param after empty without data, or for a dry run
     * @param similarity of the outputs of both; empty where perplexity is measured
     */
    public record Evaluations(
            Optional<CalibrationData> data,
            Optional<Evaluation> before,
            Optional<Evaluation> after,
            Optional<Similarity> similarity) {}

    /** Time of each pass, and the largest resident memory in bytes; 0 where the system does not tell. */
    public record Effort(List<PassTime> passes, long peakResidentBytes) {}

    /** This report with one more file that was written. */
    PruneReport withFile(Path file) {
        return new PruneReport(
                state, sizes, emission.map(found -> found.with(file)), evaluations, effort, vocabulary, seed);
    }

    /** The structure of the dense model. */
    public Structure structure() {
        return state.dense().structure();
    }

    public Plan plan() {
        return state.plan();
    }

    /** What passes report, in the order in which they ran first. */
    public List<ReportEntry> entries() {
        return List.copyOf(state.report().values());
    }

    /** Share of the parameters that were pruned. */
    public double ratioAchieved() {
        long before = sizes.before.parameters();
        return before == 0 ? 0 : 1 - (double) sizes.after.parameters() / before;
    }

    /** The share of what the target is counted in that was to be pruned: of the parameters, bytes or time. */
    public OptionalDouble ratioRequested() {
        return sizes.requested
                .map(budget -> OptionalDouble.of(
                        sizes.reached.map(ReachedTarget::ratio).orElseGet(() -> budget.ratio(sizes.before))))
                .orElse(OptionalDouble.empty());
    }

    /** How many units a dimension had in the original. */
    public int size(Dimension dimension) {
        return dimension.role() == Role.VOCABULARY
                ? vocabulary.map(found -> found.sizeBefore(dimension)).orElse(dimension.size())
                : dimension.size();
    }

    /** How many units of a dimension are kept; 0 if its block or layer was pruned as a whole. */
    public int kept(Dimension dimension) {
        int[] kept = plan().keep().get(dimension.name());
        return sizes.gone.contains(dimension.name()) ? 0 : kept == null ? dimension.size() : kept.length;
    }

    /** How many layers are kept. */
    public int layersKept() {
        return plan().layers() == null ? structure().stream().layers() : plan().layers().length;
    }

    /** How many residual blocks are kept. */
    public int blocksKept() {
        List<Block> blocks = structure().stream().blocks();
        return (int) PrunableBlocks.blocks(structure()).stream()
                .filter(copies ->
                        !plan().removesBlock(copies[0], blocks.get(copies[0]).layer()))
                .count();
    }

    /** The stable form for machines; see docs/json.md. */
    public Map<String, Object> toJson() {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("parameters_before", sizes.before.parameters());
        json.put("parameters_after", sizes.after.parameters());
        json.put("bytes_before", sizes.before.bytes());
        json.put("bytes_after", sizes.after.bytes());
        json.put("ratio_requested", orNull(ratioRequested()));
        json.put("ratio_achieved", ratioAchieved());
        json.put("target", sizes.reached.map(ReachedTarget::toJson).orElse(null));
        json.put("layers_before", structure().stream().layers());
        json.put("layers_after", layersKept());
        json.put("blocks_before", PrunableBlocks.blocks(structure()).size());
        json.put("blocks_after", blocksKept());
        json.put("dimensions", dimensions());
        json.put("rotated", 0);
        json.put("compensated", 0);
        json.put("refitted", 0);
        for (String key : List.of("gates", "search", "correction", "zeros", "recovery", "verification")) {
            json.put(key, null);
        }
        state.report().forEach((key, entry) -> json.put(key, entry.value()));
        json.put("vocabulary", vocabulary.map(VocabularyReport::toJson).orElse(null));
        json.put(
                "similarity",
                evaluations.similarity.map(PruneReport::similarity).orElse(null));
        json.put("data", evaluations.data.map(PruneReport::data).orElse(null));
        json.put(
                "evaluation_before",
                evaluations.before.map(PruneReport::evaluation).orElse(null));
        json.put(
                "evaluation_after",
                evaluations.after.map(PruneReport::evaluation).orElse(null));
        json.put(
                "files",
                emission.stream()
                        .flatMap(found -> found.files().stream())
                        .map(Object::toString)
                        .toList());
        json.put(
                "passes",
                effort.passes.stream()
                        .map(pass -> Map.of("name", pass.name(), "seconds", pass.seconds()))
                        .toList());
        json.put("peak_rss_bytes", effort.peakResidentBytes);
        json.put("seed", seed);
        return json;
    }

    private List<Map<String, Object>> dimensions() {
        List<Map<String, Object>> dimensions = new ArrayList<>();
        for (Dimension dimension : structure().dimensions()) {
            Map<String, Object> entry = new LinkedHashMap<>();
            entry.put("name", dimension.name());
            entry.put("role", dimension.role().key());
            entry.put("layer", dimension.layer());
            entry.put("size", size(dimension));
            entry.put("kept", kept(dimension));
            dimensions.add(entry);
        }
        return dimensions;
    }

    private static Map<String, Object> data(CalibrationData found) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("calibrates", found.calibrates());
        json.put("windows", found.rows().size());
        json.put("sequence_length", found.length());
        json.put("tokens", found.tokens());
        json.put("held_out", found.heldOut().size());
        json.put("predictions", found.predictions());
        List<Map<String, Object>> sources = new ArrayList<>();
        for (CalibrationData.Source source : found.sources()) {
            Map<String, Object> entry = new LinkedHashMap<>();
            entry.put("name", source.name());
            entry.put("windows", source.rows());
            entry.put("held_out", source.heldOut());
            sources.add(entry);
        }
        json.put("sources", sources);
        return json;
    }

    private static Map<String, Object> similarity(Similarity found) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("pooled_cosine", found.pooled());
        json.put("cosine", found.cosine());
        json.put("relative_squared_error", found.error());
        json.put("rows", found.rows());
        return json;
    }

    private static Map<String, Object> evaluation(Evaluation found) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("perplexity", found.perplexity());
        json.put("nll", found.nll());
        json.put("tokens", found.tokens());
        json.put("prefill_tokens_per_second", orNull(found.prefillTokensPerSecond()));
        json.put("decode_tokens_per_second", orNull(found.decodeTokensPerSecond()));
        return json;
    }

    /** A number, or JSON's null. */
    private static @Nullable Double orNull(OptionalDouble value) {
        return value.isPresent() ? value.getAsDouble() : null;
    }
}
