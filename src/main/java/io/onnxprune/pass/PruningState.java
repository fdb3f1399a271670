// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.pass;

import io.onnxprune.emit.Emitter;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.Scores;
import io.onnxprune.rewrite.PrunedState;
import java.util.Arrays;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeSet;
import java.util.function.IntFunction;
import java.util.stream.Stream;

/**
 * Everything that goes from pass to pass. It never changes: a pass returns another one.
 *
 * @param dense the model before pruning
 * @param pruned the plan and the weights that passes have come to
 * @param choice a plan that was chosen since, which no pass has acted on yet, with weights that follow from it alone
 * @param scores importance of the units of {@code pruned}
 * @param report by key, what passes report
 * @param output the rewritten model and its file
 */
public record PruningState(
        DenseModel dense,
        PrunedState pruned,
        Optional<PrunedState> choice,
        Optional<Scores> scores,
        Map<String, ReportEntry> report,
        Output output) {
    /**
     * The pruned model in its final form.
     *
     * @param model as a graph; empty before it is rewritten
     * @param file as a file that does not have its name yet; empty before it is emitted
     */
    public record Output(Optional<Model> model, Optional<Emitter.Staged> file) {
        static final Output NONE = new Output(Optional.empty(), Optional.empty());
    }

    public PruningState {
        report = Collections.unmodifiableMap(new LinkedHashMap<>(report));
    }

    /** The state before the first pass: nothing is pruned. */
    public static PruningState of(DenseModel dense) {
        return new PruningState(
                dense,
                PrunedState.whole(dense.structure(), dense.keepAll()),
                Optional.empty(),
                Optional.empty(),
                Map.of(),
                Output.NONE);
    }

    /** The plan, with a choice that no pass has acted on yet. */
    public Plan plan() {
        return choice.orElse(pruned).plan();
    }

    /** Whether the plan keeps everything. */
    public boolean prunesNothing() {
        return plan().removesNothing(dense.structure());
    }

    /** This state after its choice was accepted as it is, without weights that compensate. */
    public PruningState settled() {
        return choice.map(chosen ->
                        new PruningState(dense, chosen, Optional.empty(), Optional.empty(), report, Output.NONE))
                .orElse(this);
    }

    /**
     * The model before the choice, but without the layers and blocks that the choice prunes: what compensates for units is
     * measured on it.
     */
    public PrunedState beforeChoice() {
        Plan chosen = plan();
        Plan past = pruned.plan();
        boolean same = Arrays.equals(chosen.layers(), past.layers()) && Arrays.equals(chosen.blocks(), past.blocks());
        return same
                ? pruned
                : PrunedState.of(
                        dense.structure(),
                        new Plan(dense.hash(), past.keep(), chosen.layers(), chosen.blocks()),
                        pruned.updates());
    }

    public PruningState withDense(DenseModel changed) {
        if (!pruned.isDense() || choice.isPresent()) {
            throw new IllegalStateException("the dense model can only change before anything is pruned");
        }
        return of(changed).withReport(report);
    }

    private PruningState withReport(Map<String, ReportEntry> entries) {
        return new PruningState(dense, pruned, choice, scores, entries, output);
    }

    public PruningState withScores(Scores found) {
        return new PruningState(dense, pruned, choice, Optional.of(found), report, output);
    }

    /** This state with nothing pruned any more and the weights of the dense model; scores stay. */
    public PruningState restarted() {
        return new PruningState(
                dense,
                PrunedState.whole(dense.structure(), dense.keepAll()),
                Optional.empty(),
                scores,
                report,
                Output.NONE);
    }

    /**
     * This state with a plan that compensation has yet to act on.
     *
     * @param updates weights that follow from the plan alone, such as rescaled norms
     */
    public PruningState withChoice(Plan plan, Map<Value, Tensor> updates) {
        Map<Value, Tensor> all = new HashMap<>(choice.orElse(pruned).updates());
        all.putAll(updates);
        PrunedState chosen = PrunedState.of(dense.structure(), plan, all);
        return new PruningState(dense, pruned, Optional.of(chosen), scores, report, output);
    }

    /** This state with another plan and with changed weights in place of those of the same name. */
    public PruningState withModel(Plan plan, Map<Value, Tensor> updates) {
        Map<Value, Tensor> all = new HashMap<>(choice.orElse(pruned).updates());
        all.putAll(updates);
        PrunedState next = PrunedState.of(dense.structure(), plan, all);
        return new PruningState(dense, next, Optional.empty(), Optional.empty(), report, Output.NONE);
    }

    /** This state with changed weights in place of those of the same name. */
    public PruningState withWeights(Map<Value, Tensor> updates) {
        return withModel(plan(), updates);
    }

    public PruningState withOutput(Output changed) {
        return new PruningState(dense, pruned, choice, scores, report, changed);
    }

    public PruningState with(ReportEntry entry) {
        Map<String, ReportEntry> entries = new LinkedHashMap<>(report);
        entries.put(entry.key(), entry);
        return withReport(entries);
    }

    /**
     * This state with an entry about linear layers, beside those of earlier runs under the same key.
     *
     * @param changed constants; those that are weights of linear layers count
     * @param sentence makes the sentence of the number of layers
     */
    public PruningState withLayers(String key, Collection<Value> changed, IntFunction<String> sentence) {
        List<String> past =
                Optional.ofNullable(report.get(key)).map(ReportEntry::items).orElse(List.of());
        List<String> all = List.copyOf(new TreeSet<>(Stream.concat(
                        past.stream(), dense.layers().weights(changed).stream().map(Value::name))
                .toList()));
        return all.isEmpty() ? this : with(new ReportEntry(key, sentence.apply(all.size()), all.size(), all));
    }
}
