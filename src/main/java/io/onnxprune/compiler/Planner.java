// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compiler;

import io.onnxprune.algebra.Blas;
import io.onnxprune.compensate.KroneckerUpdate;
import io.onnxprune.compensate.ObsImportance;
import io.onnxprune.compensate.SequentialPruning;
import io.onnxprune.compensate.SequentialPruning.Selection;
import io.onnxprune.compensate.SequentialPruning.Update;
import io.onnxprune.compensate.Sparsification;
import io.onnxprune.compensate.SurgeonSparsification;
import io.onnxprune.compiler.StepNotes.Reached;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Structure;
import io.onnxprune.eval.CalibrationData;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.Allocation;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.plan.Importance;
import io.onnxprune.plan.Measurements;
import io.onnxprune.plan.ParameterCount;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.PlanFile;
import io.onnxprune.plan.PositionImportance;
import io.onnxprune.plan.Scores;
import io.onnxprune.plan.Taylor;
import io.onnxprune.recipe.Pass;
import io.onnxprune.recipe.PassKind;
import io.onnxprune.recipe.PlanPasses;
import io.onnxprune.recipe.Recipe;
import io.onnxprune.rewrite.NormCorrection;
import io.onnxprune.rewrite.PrunedState;
import io.onnxprune.runtime.OnnxRuntime;
import java.util.Arrays;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/** Makes a plan as a recipe says, or takes one, and makes the weights that go with it. */
final class Planner {
    private static final String COMPENSATED = "compensated";
    private static final String REFITTED = "refitted";

    private final PruneJob job;
    private final Structure structure;
    private final OnnxRuntime runtime;
    private final PassClock clock;
    private final Log log;
    private final String hash;
    private final LinearLayers consumers;
    private final Budget budget;
    private final ParameterCount.Size whole;
    private final Set<Value> compensated = new HashSet<>();
    private Optional<Sparsification.Zeros> zeros = Optional.empty();
    private final ModelStatistics statistics;
    private Optional<CalibrationData> data = Optional.empty();
    private Optional<StepNotes> notes = Optional.empty();
    private ModelRuns runs;
    private Repairs repairs;
    private boolean announced;

    /**
     * Prepares a plan for the model of {@code structure}.
     *
     * @param whole size of the model that was given, before anything was added to it
     * @throws io.onnxprune.diag.UserException if the target cannot be reached, whatever the data say
     */
    Planner(
            PruneJob job,
            Structure structure,
            ParameterCount.Size whole,
            OnnxRuntime runtime,
            PassClock clock,
            Log log) {
        this.job = job;
        this.structure = structure;
        this.runtime = runtime;
        this.clock = clock;
        this.log = log;
        this.hash = clock.timed("hash", () -> PlanFile.hash(job.input().model()));
        this.consumers = LinearLayers.of(structure);
        this.whole = ParameterCount.of(structure).whole();
        boolean byConsumers = job.plan().isEmpty() && PlanPasses.comparesConsumers(job.recipe());
        Budget asked = job.budget().rebased(whole, ParameterCount.of(structure).whole());
        this.budget = byConsumers
                ? consumers.restrict(
                        asked,
                        structure,
                        PlanPasses.isOfLoss(job.recipe().pass(PassKind.SCORE)),
                        job.recipe().name(),
                        log)
                : asked;
        if (job.plan().isEmpty() && !isNothing()) {
            Allocation.check(structure, budget);
        }
        this.statistics =
                new ModelStatistics(job.statistics(), hash, job.calibration().draws(), clock, log);
    }

    private boolean isNothing() {
        return budget.goal() == Budget.Goal.RATIO && budget.amount() == 0;
    }

    /** How many products have weights that make up for what was removed. */
    int compensated() {
        return compensated.size();
    }

    /** What was done to the weights of the smaller model. */
    Repairs repairs() {
        return repairs;
    }

    /** The zeros that were made within weights; empty if none were asked for. */
    Optional<Sparsification.Zeros> zeros() {
        return zeros;
    }

    /**
     * Makes the plan and the weights that go with it, measured on {@code given}.
     *
     * @param rows to train on in place of those
     */
    Steps.Outcome run(Optional<CalibrationData> given, Optional<TrainingRows> rows) {
        data = given;
        runs = new ModelRuns(job, structure, given.orElse(null), statistics, runtime, log);
        repairs = new Repairs(job, structure, consumers, runs, rows, runtime, clock, log);
        checkTokens();
        statistics.over(given);
        Pass sparsify = job.recipe().pass(PassKind.SPARSIFY);
        try (statistics) {
            return sparsify == null ? planned() : sparsified(planned(), sparsify);
        }
    }

    /** Damping makes any second moment invertible; what it hides is said here. */
    private void checkTokens() {
        if (data.isEmpty() || !PlanPasses.solves(job.recipe())) {
            return;
        }
        long tokens = data.get().tokens();
        consumers.all().stream()
                .filter(consumers::isInside)
                .max(Comparator.comparingInt(LinearLayer::inputs))
                .filter(widest -> widest.inputs() > tokens)
                .ifPresent(widest -> log.warn(String.format(
                        Locale.ROOT,
                        "%,d tokens of calibration data do not determine how the %,d inputs of node %s depend on each other, so"
                                + " damping decides; calibrate on at least %,d tokens (--samples, --seq-len)",
                        tokens,
                        widest.inputs(),
                        widest.node(),
                        widest.inputs())));
    }

    private Steps.Outcome planned() {
        if (PlanPasses.solves(job.recipe())) {
            Blas.setThreads(job.threads());
        }
        Pass refit = job.recipe().pass(PassKind.REFIT);
        Pass recover = job.recipe().pass(PassKind.RECOVER);
        if (job.plan().isPresent()) {
            Plan plan = PlanFile.read(job.plan().get(), structure, hash);
            Steps.Outcome fixed = compensated(PrunedState.whole(structure, Plan.keepAll(hash)), plan, null);
            return repairs.recovered(repairs.corrected(repairs.refitted(fixed, refit)), recover);
        }
        if (isNothing()) {
            return new Steps.Outcome(Plan.keepAll(hash), Map.of());
        }
        int steps = PlanPasses.steps(job.recipe().pass(PassKind.ALLOCATE), budget.ratio(whole));
        boolean everyStep = refit != null && refit.flag("every-step");
        boolean trained = recover != null && recover.flag("every-step");
        Reached begun = begun(steps);
        Optional<Forecast> forecast = forecast(steps);
        forecast.ifPresent(each -> each.begin(begun.step()));
        Steps.Outcome reached = Steps.run(
                structure,
                budget,
                steps,
                begun.step(),
                begun.outcome(),
                (state, target) -> repairs.recovered(
                        repairs.refitted(step(state, target), everyStep ? refit : null), trained ? recover : null),
                (step, outcome) -> {
                    note(step, outcome);
                    forecast.ifPresent(each -> each.done(step));
                });
        Steps.Outcome last = repairs.corrected(everyStep ? reached : repairs.refitted(reached, refit));
        return trained ? last : repairs.recovered(last, recover);
    }

    /** What a run that was stopped had come to, if this one is to go on from there. */
    private Reached begun(int steps) {
        Reached nothing = new Reached(0, new Steps.Outcome(Plan.keepAll(hash), Map.of()), Map.of());
        boolean resumes = PlanPasses.resumesSteps(job.recipe(), budget.ratio(whole));
        if (!resumes && !PlanPasses.resumesZeros(job.recipe())) {
            return nothing;
        }
        Recipe recipe = job.recipe().without(PassKind.VERIFY);
        String key = StepNotes.key(
                List.of(hash, recipe.passes(), budget),
                data.map(CalibrationData::rows).orElse(List.of()));
        notes = Optional.of(new StepNotes(job.calibration().workFolder(), structure, hash, key, log));
        Reached begun = job.calibration().resume() ? notes.get().load(steps).orElse(nothing) : nothing;
        compensated.addAll(begun.marks().getOrDefault(COMPENSATED, Set.of()));
        repairs.refitted().addAll(begun.marks().getOrDefault(REFITTED, Set.of()));
        return begun;
    }

    private Optional<Forecast> forecast(int steps) {
        Recipe recipe = job.recipe();
        boolean measured = data.filter(CalibrationData::calibrates).isPresent();
        return measured && (steps > 1 || PlanPasses.solves(recipe))
                ? Optional.of(new Forecast(
                        recipe,
                        structure,
                        consumers,
                        budget.prune(),
                        steps,
                        data.get().tokens(),
                        log))
                : Optional.empty();
    }

    private void note(int step, Steps.Outcome reached) {
        notes.ifPresent(target -> target.save(
                new Reached(step, reached, Map.of(COMPENSATED, compensated, REFITTED, repairs.refitted()))));
    }

    /** Says that what was made is where it belongs, so that notes about the way there are of no use any more. */
    void finish() {
        notes.ifPresent(StepNotes::remove);
    }

    /** One of several steps says how far it goes; what it runs is like what the first one ran. */
    private Steps.Outcome step(PrunedState state, Budget target) {
        if (target.amount() != budget.amount() || announced) {
            log.info(String.format(Locale.ROOT, "removing up to %.1f %%", 100 * target.ratio(whole)));
        }
        Steps.Outcome reached = stepTo(state, target);
        announced = true;
        runs.quiet();
        return reached;
    }

    private Steps.Outcome stepTo(PrunedState state, Budget target) {
        Pass score = job.recipe().pass(PassKind.SCORE);
        boolean sequential = PlanPasses.isSequential(score);
        Importance importance = sequential ? new PositionImportance() : importance(state, score);
        Scores scores =
                clock.timed("score", () -> importance.score(structure, log)).after(state.plan(), structure);
        Plan plan = clock.timed("allocate", () -> Allocation.of(structure, scores, target, hash, log))
                .plan();
        return compensated(state, plan, sequential ? PlanPasses.selection(score) : null);
    }

    /** The importance that the recipe asks for, measured on the model that earlier steps left. */
    private Importance importance(PrunedState state, Pass score) {
        if (PlanPasses.isObs(score)) {
            return new ObsImportance(
                    state,
                    consumers,
                    budget.prune(),
                    runs.calibrator(state.model()),
                    statistics.of(state),
                    PlanPasses.isOfLoss(score),
                    PlanPasses.countsMakers(score),
                    PlanPasses.selection(score));
        }
        Measurements measured =
                data.map(given -> measurements(state, score, given)).orElse(null);
        return PlanPasses.importance(score, budget.prune(), job.threads(), measured);
    }

    private Measurements measurements(PrunedState state, Pass score, CalibrationData given) {
        return new Measurements(
                gradients(state, score, given),
                new ModelInputs(state, given.rows(), runtime, job.calibration(), log),
                new ModelSimilarities(state, given.rows(), runtime, job.calibration(), log));
    }

    private Taylor.Gradients gradients(PrunedState state, Pass score, CalibrationData given) {
        String key = ModelGradients.key(state.plan(), score, budget.prune());
        return new SlicedGradients(
                new ModelGradients(state.model(), given.rows(), runtime, job.calibration(), key, log), state);
    }

    /**
     * The plan with new weights that the recipe asks for.
     *
     * @param selection how units are chosen, so that {@code plan} only says how many; null if it says which
     */
    private Steps.Outcome compensated(PrunedState state, Plan plan, Selection selection) {
        Map<Value, Tensor> updates = new HashMap<>(state.updates());
        Pass rewrite = job.recipe().pass(PassKind.REWRITE);
        if (rewrite == null || rewrite.flag("norm-correction")) {
            updates.putAll(clock.timed("norm-correction", () -> NormCorrection.of(structure, plan.keep(structure))));
        }
        Pass compensate = job.recipe().pass(PassKind.COMPENSATE);
        Optional<Update> update = PlanPasses.update(compensate);
        Optional<KroneckerUpdate.Settings> kronecker = PlanPasses.kronecker(compensate);
        if (kronecker.isPresent() && selection == null && !plan.removesNothing(structure)) {
            return clock.timed("compensate", () -> {
                PrunedState before = before(state, plan);
                Map<Value, Tensor> changed = KroneckerUpdate.of(
                        before,
                        consumers,
                        plan,
                        kronecker.get(),
                        runs.calibrator(before.model()),
                        statistics.of(before),
                        job.calibration().workFolder(),
                        log);
                updates.putAll(changed);
                compensated.addAll(consumers.weights(changed.keySet()));
                return new Steps.Outcome(plan, updates);
            });
        }
        if (plan.removesNothing(structure) || selection == null && update.isEmpty()) {
            return new Steps.Outcome(plan, updates);
        }
        return clock.timed(selection == null ? "compensate" : "prune", () -> {
            PrunedState before = before(state, plan);
            SequentialPruning pruning = new SequentialPruning(
                    before,
                    consumers,
                    plan,
                    selection,
                    update.orElse(null),
                    job.calibration().workFolder(),
                    log);
            runs.run(before, update.isPresent() && update.get().dense(), pruning);
            Map<Value, Tensor> changed = pruning.updates();
            updates.putAll(changed);
            if (update.isPresent()) {
                compensated.addAll(consumers.weights(changed.keySet()));
            }
            return new Steps.Outcome(pruning.plan(), updates);
        });
    }

    /** The model before a step, without the layers and blocks that go in it. */
    private PrunedState before(PrunedState state, Plan plan) {
        boolean same = Arrays.equals(plan.layers(), state.plan().layers())
                && Arrays.equals(plan.blocks(), state.plan().blocks());
        return same
                ? state
                : PrunedState.of(
                        structure, new Plan(hash, state.plan().keep(), plan.layers(), plan.blocks()), state.updates());
    }

    /** The same with zeros in the weights that are left. */
    private Steps.Outcome sparsified(Steps.Outcome reached, Pass sparsify) {
        return repairs.adjusted("sparsify", reached, state -> {
            if (PlanPasses.isSurgeon(sparsify)) {
                return bySurgeon(state, reached, sparsify);
            }
            Sparsification editor = new Sparsification(
                    state,
                    consumers,
                    PlanPasses.sparsification(sparsify),
                    job.calibration().workFolder(),
                    log);
            runs.run(state, false, editor);
            zeros = Optional.of(editor.zeros());
            return editor.updates();
        });
    }

    private Map<Value, Tensor> bySurgeon(PrunedState state, Steps.Outcome reached, Pass sparsify) {
        SurgeonSparsification.Request request = PlanPasses.surgeon(sparsify);
        boolean alone = PlanPasses.resumesZeros(job.recipe());
        Reached begun = alone ? begun(request.steps()) : new Reached(0, reached, Map.of());
        Map<Value, Tensor> updates = new HashMap<>(begun.outcome().updates());
        PrunedState from = begun.step() == 0 ? state : PrunedState.of(structure, reached.plan(), updates);
        SurgeonSparsification.Result result = SurgeonSparsification.run(
                from,
                consumers,
                runs.calibrator(from.model()),
                statistics.of(from),
                request,
                begun.step(),
                (step, changed) -> {
                    if (alone) {
                        note(step, new Steps.Outcome(reached.plan(), changed.get()));
                    }
                },
                job.calibration().workFolder(),
                log);
        zeros = Optional.of(result.zeros());
        updates.putAll(result.updates());
        return updates;
    }
}
