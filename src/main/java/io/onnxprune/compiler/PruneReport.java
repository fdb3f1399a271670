// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compiler;

import io.onnxprune.compensate.KfacCorrection;
import io.onnxprune.compensate.Sparsification;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.ResidualStream.Block;
import io.onnxprune.dims.Structure;
import io.onnxprune.emit.Emitter;
import io.onnxprune.eval.CalibrationData;
import io.onnxprune.eval.Evaluation;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.ParameterCount;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.PrunableBlocks;
import io.onnxprune.verify.Verifier.Verification;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.Set;

/**
 * What a run did.
 *
 * @param before size of the whole model
 * @param after size of the result
 * @param gone names of the dimensions that went with their block or layer
 * @param compensated how many products have new weights that make up for what was removed
 * @param refitted how many products have new weights that bring the residual stream near to that of the whole model
 * @param correction what a correction by gradients came to; empty without one
 * @param zeros what was made zero within weights; empty if that was not asked for
 * @param recovery how the result was trained; empty if it was not
 * @param requested what was asked to go; empty where a plan was given, or nothing was to go but only to become zero
 * @param emission what was written; empty for a dry run
 * @param verification empty if it was switched off, or for a dry run
 * @param data what was calibrated and measured on; empty without data
 * @param evaluationBefore empty without data, or for a dry run
 */
public record PruneReport(
        Structure structure,
        Plan plan,
        ParameterCount.Size before,
        ParameterCount.Size after,
        Set<String> gone,
        int compensated,
        int refitted,
        Optional<KfacCorrection.Result> correction,
        Optional<Sparsification.Zeros> zeros,
        Optional<TrainingReport> recovery,
        Optional<Budget> requested,
        Optional<Emitter.Emission> emission,
        Optional<Verification> verification,
        Optional<CalibrationData> data,
        Optional<Evaluation> evaluationBefore,
        Optional<Evaluation> evaluationAfter,
        List<PassTime> passes,
        long peakResidentBytes,
        long seed) {
    /** How long a pass took. */
    public record PassTime(String name, double seconds) {}

    /** Share of the parameters that went. */
    public double ratioAchieved() {
        return before.parameters() == 0 ? 0 : 1 - (double) after.parameters() / before.parameters();
    }

    /** The share of the parameters, or for a target in bytes of the bytes, that was asked to go. */
    public OptionalDouble ratioRequested() {
        return requested.map(budget -> OptionalDouble.of(budget.ratio(before))).orElse(OptionalDouble.empty());
    }

    /** How many units of a dimension are left; 0 if its block or layer went as a whole. */
    public int kept(Dimension dimension) {
        int[] kept = plan.keep().get(dimension.name());
        return gone.contains(dimension.name()) ? 0 : kept == null ? dimension.size() : kept.length;
    }

    /** The layers that are left. */
    public int layersKept() {
        return plan.layers() == null ? structure.stream().layers() : plan.layers().length;
    }

    /** The residual blocks that are left. */
    public int blocksKept() {
        List<Block> blocks = structure.stream().blocks();
        return (int) PrunableBlocks.blocks(structure).stream()
                .filter(copies ->
                        !plan.removesBlock(copies[0], blocks.get(copies[0]).layer()))
                .count();
    }

    /** The stable form for machines; see docs/json.md. */
    public Map<String, Object> toJson() {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("parameters_before", before.parameters());
        json.put("parameters_after", after.parameters());
        json.put("bytes_before", before.bytes());
        json.put("bytes_after", after.bytes());
        json.put("ratio_requested", orNull(ratioRequested()));
        json.put("ratio_achieved", ratioAchieved());
        json.put("layers_before", structure.stream().layers());
        json.put("layers_after", layersKept());
        json.put("blocks_before", PrunableBlocks.blocks(structure).size());
        json.put("blocks_after", blocksKept());
        List<Map<String, Object>> dimensions = new ArrayList<>();
        for (Dimension dimension : structure.dimensions()) {
            Map<String, Object> entry = new LinkedHashMap<>();
            entry.put("name", dimension.name());
            entry.put("role", dimension.role().key());
            entry.put("layer", dimension.layer());
            entry.put("size", dimension.size());
            entry.put("kept", kept(dimension));
            dimensions.add(entry);
        }
        json.put("dimensions", dimensions);
        json.put("compensated", compensated);
        json.put("refitted", refitted);
        json.put("correction", correction.map(PruneReport::correction).orElse(null));
        json.put("zeros", zeros.map(PruneReport::zeros).orElse(null));
        json.put("recovery", recovery.map(TrainingReport::toJson).orElse(null));
        json.put("verification", verification.map(PruneReport::verification).orElse(null));
        json.put("data", data.map(PruneReport::data).orElse(null));
        json.put(
                "evaluation_before",
                evaluationBefore.map(PruneReport::evaluation).orElse(null));
        json.put(
                "evaluation_after", evaluationAfter.map(PruneReport::evaluation).orElse(null));
        json.put(
                "files",
                emission.stream()
                        .flatMap(found -> found.files().stream())
                        .map(Object::toString)
                        .toList());
        json.put(
                "passes",
                passes.stream()
                        .map(pass -> Map.of("name", pass.name(), "seconds", pass.seconds()))
                        .toList());
        json.put("peak_rss_bytes", peakResidentBytes);
        json.put("seed", seed);
        return json;
    }

    private static Map<String, Object> correction(KfacCorrection.Result found) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("products", found.updates().size());
        json.put("divergence_before", found.before());
        json.put("divergence_after", found.after());
        return json;
    }

    private static Map<String, Object> zeros(Sparsification.Zeros found) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("matrices", found.matrices());
        json.put("weights", found.weights());
        json.put("zeros", found.zeros());
        return json;
    }

    private static Map<String, Object> verification(Verification found) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("max_abs_diff", found.maxAbsDiff());
        json.put("decode_max_abs_diff", orNull(found.decodeMaxAbsDiff()));
        json.put("logit_scale", found.scale());
        json.put("tokens", found.tokens());
        return json;
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

    private static Map<String, Object> evaluation(Evaluation found) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("perplexity", found.perplexity());
        json.put("nll", found.nll());
        json.put("tokens", found.tokens());
        json.put("prefill_tokens_per_second", orNull(found.prefillTokensPerSecond()));
        json.put("decode_tokens_per_second", orNull(found.decodeTokensPerSecond()));
        return json;
    }

    private static Double orNull(OptionalDouble value) {
        return value.isPresent() ? value.getAsDouble() : null;
    }
}
