// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compiler;

import io.onnxprune.compensate.ResidualRefit;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Structure;
import io.onnxprune.emit.Emitter;
import io.onnxprune.eval.CalibrationData;
import io.onnxprune.eval.CausalLm;
import io.onnxprune.eval.EvalOptions;
import io.onnxprune.eval.Evaluation;
import io.onnxprune.eval.Evaluator;
import io.onnxprune.ir.GraphChecker;
import io.onnxprune.ir.GraphPrinter;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.plan.Allocation;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.plan.ParameterCount;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.PlanFile;
import io.onnxprune.recipe.Pass;
import io.onnxprune.recipe.PassKind;
import io.onnxprune.recipe.PlanPasses;
import io.onnxprune.rewrite.BlockRemover;
import io.onnxprune.rewrite.OutputBiases;
import io.onnxprune.rewrite.Slicer;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.verify.Verifier;
import io.onnxprune.verify.Verifier.Verification;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.Set;

/** Runs the passes of a recipe over a model: from the file to a plan, a smaller file, and the proof that they agree. */
public final class Pruner {
    private final PruneJob job;
    private final OnnxRuntime runtime;
    private final Log log;
    private final PassClock clock;
    private Optional<Verification> verification = Optional.empty();
    private Optional<Evaluation> before = Optional.empty();
    private Optional<TrainingRows> training = Optional.empty();
    private int dumped;

    private Pruner(PruneJob job, OnnxRuntime runtime, Log log) {
        this.job = job;
        this.runtime = runtime;
        this.log = log;
        this.clock = new PassClock(log);
    }

    /**
     * Does what {@code job} asks.
     *
     * @throws UserException if it cannot be done; nothing is left at the target then
     */
    public static PruneReport run(PruneJob job, OnnxRuntime runtime, Log log) {
        return new Pruner(job, runtime, log).run();
    }

    private PruneReport run() {
        if (job.recipe().pass(PassKind.RECOVER) != null) {
            runtime.requireTraining();
        }
        Path file = job.input().model();
        Model model = clock.timed("import", () -> ModelReader.read(file));
        dump("import", model);
        Structure found = clock.timed("infer-dimensions", () -> AnalysedModel.of(model, runtime, log))
                .structure();
        ParameterCount.Size whole = ParameterCount.of(found).whole();
        Structure structure = PlanPasses.needsBiases(job.recipe()) && !isNothing()
                ? clock.timed("add-biases", () -> biased(found))
                : found;
        ParameterCount count = ParameterCount.of(structure);
        Planner planner = new Planner(job, structure, whole, runtime, clock, log);
        Optional<CalibrationData> data = data();
        Steps.Outcome outcome = planner.run(data, training);
        Plan plan = outcome.plan();
        job.planOut().ifPresent(path -> PlanFile.write(path, plan, structure));
        Optional<Emitter.Emission> emission = Optional.empty();
        Optional<Evaluation> after = Optional.empty();
        if (job.target().isPresent()) {
            Map<Value, Tensor> updates = outcome.updates();
            Model pruned =
                    plan.removesNothing(structure) && updates.isEmpty() ? model : rewrite(structure, plan, updates);
            Emitter.Emission written = clock.timed(
                    "emit",
                    () -> Emitter.emit(
                            pruned,
                            structure,
                            plan,
                            job.input(),
                            job.target().get(),
                            job.externalData(),
                            Map.of(),
                            staged -> verify(structure, plan, updates, staged),
                            log));
            emission = Optional.of(written);
            after = data.map(given -> evaluateAfter(written.files().get(0), given));
        }
        planner.finish();
        return new PruneReport(
                structure,
                plan,
                whole,
                count.under(plan),
                count.gone(plan),
                planner.compensated(),
                planner.repairs().refitted().size(),
                planner.repairs().correction(),
                planner.zeros(),
                planner.repairs().recovery(),
                job.plan().isPresent() || job.recipe().pass(PassKind.ALLOCATE) == null
                        ? Optional.empty()
                        : Optional.of(job.budget()),
                emission,
                verification,
                data,
                before,
                after,
                clock.times(),
                ProcessMemory.peakResidentBytes(),
                job.seed());
    }

    private boolean isNothing() {
        return job.plan().isEmpty()
                && job.budget().goal() == Budget.Goal.RATIO
                && job.budget().amount() == 0;
    }

    /** The model with a bias for each product whose bias the recipe may change. */
    private Structure biased(Structure structure) {
        LinearLayers consumers = LinearLayers.of(structure);
        Set<LinearLayer> products = new LinkedHashSet<>();
        Pass refit = job.recipe().pass(PassKind.REFIT);
        if (refit != null && refit.flag("bias")) {
            products.addAll(ResidualRefit.products(structure, consumers));
        }
        Set<String> given = job.plan()
                .map(path -> PlanFile.read(
                                path, structure, PlanFile.hash(job.input().model()))
                        .keep()
                        .keySet())
                .orElse(null);
        List<Dimension> shrinking = given == null
                ? Allocation.candidates(structure, job.budget())
                : structure.dimensions().stream()
                        .filter(dimension -> given.contains(dimension.name()))
                        .toList();
        shrinking.forEach(dimension -> products.addAll(consumers.of(dimension)));
        Model completed = OutputBiases.complete(structure, products);
        dump("add-biases", completed);
        return AnalysedModel.of(completed, runtime, Log.NONE).structure();
    }

    private Model rewrite(Structure structure, Plan plan, Map<Value, Tensor> updates) {
        Dim.Keep keep = plan.keep(structure);
        Model sliced = checked("slice", clock.timed("slice", () -> Slicer.slice(structure, keep, updates)));
        return checked(
                "remove-blocks", clock.timed("remove-blocks", () -> BlockRemover.remove(structure, plan, sliced)));
    }

    private Model checked(String pass, Model model) {
        GraphChecker.check(model, pass);
        dump(pass, model);
        return model;
    }

    private void dump(String pass, Model model) {
        if (job.dumpIr().isEmpty()) {
            return;
        }
        Path file = job.dumpIr().get().resolve(String.format("%02d-%s.txt", dumped++, pass));
        try {
            Files.createDirectories(job.dumpIr().get());
            Files.writeString(file, GraphPrinter.print(model));
        } catch (IOException e) {
            throw new UserException("cannot write " + file + ": " + FileFailure.reason(e), e);
        }
    }

    /** Opens and compares what was written, before it takes its place. */
    private void verify(Structure structure, Plan plan, Map<Value, Tensor> updates, Path file) {
        Pass verify = job.recipe().pass(PassKind.VERIFY);
        if (verify == null) {
            log.warn("the result was not verified, since the recipe or --no-verify leaves that out");
            return;
        }
        clock.timed("open", () -> {
            open(file);
            return null;
        });
        double tolerance = verify.number("tolerance");
        Verification found = clock.timed(
                "verify", () -> Verifier.compare(structure, plan, updates, file, runtime, tolerance, job.seed()));
        if (!Double.isFinite(found.scale())) {
            throw new UserException("the logits of the model are not finite numbers, so the result cannot be compared:"
                    + " weights hold NaN or infinite values, or overflow; repair them, or add --no-verify");
        }
        if (!(found.relative() <= tolerance)) {
            throw new UserException(String.format(
                    "verification failed: logits of the pruned model differ by %.3g of their scale from the original"
                            + " with the removed parts zeroed (tolerance %.0e); nothing was written, please report"
                            + " this model",
                    found.relative(), tolerance));
        }
        verification = Optional.of(found);
    }

    /**
     * A fresh session opens what was written, as a user's would: without optimisation, which costs least, or else with
     * it, since some graphs load only then. Where the original does not load either (a provider without bfloat16
     * kernels, a defect of the runtime), that is no fault of the result.
     */
    private void open(Path file) {
        Optional<UserException> failure = failureToOpen(file);
        if (failure.isPresent()) {
            if (failureToOpen(job.input().model()).isEmpty()) {
                throw failure.get();
            }
            log.warn("this runtime loads neither the original nor the result as they are, so they are compared in"
                    + " float32: " + failure.get().getMessage());
        }
    }

    private Optional<UserException> failureToOpen(Path file) {
        UserException failure = null;
        for (boolean optimize : new boolean[] {false, true}) {
            try {
                runtime.open(file, optimize).close();
                return Optional.empty();
            } catch (UserException e) {
                failure = e;
            }
        }
        return Optional.of(failure);
    }

    /** The data of the run; what it tells about the whole model is measured in the same session. */
    private Optional<CalibrationData> data() {
        Optional<TrainingRows.Source> rows = trainingSource();
        if (job.data().isEmpty() && rows.isEmpty()) {
            return Optional.empty();
        }
        Path file = job.input().model();
        try (CausalLm model = clock.timed("open-model", () -> CausalLm.open(runtime, file, log))) {
            training =
                    rows.map(source -> clock.timed("training-data", () -> TrainingRows.read(source, model, file, log)));
            if (job.data().isEmpty()) {
                return Optional.empty();
            }
            CalibrationData data = clock.timed(
                    "data",
                    () -> CalibrationData.resolve(
                            model, file, job.data(), job.calibration().workFolder(), log));
            if (job.target().isPresent()) {
                before = Optional.of(clock.timed("evaluate-before", () -> evaluate(model, data)));
            }
            return Optional.of(data);
        }
    }

    /** The file that the recipe trains on: it is read first, so that nobody waits for a plan to hear that it is broken. */
    private Optional<TrainingRows.Source> trainingSource() {
        return PlanPasses.recoveryData(job.recipe())
                .map(file -> new TrainingRows.Source(
                        file,
                        Optional.empty(),
                        job.data().tokenizer(),
                        job.recipe().pass(PassKind.RECOVER).integer("seq-len")));
    }

    private Evaluation evaluateAfter(Path file, CalibrationData data) {
        return clock.timed("evaluate-after", () -> {
            try (CausalLm model = CausalLm.open(runtime, file, log)) {
                return evaluate(model, data);
            }
        });
    }

    private Evaluation evaluate(CausalLm model, CalibrationData data) {
        return Evaluator.evaluate(model, data.heldOut(), OptionalInt.of(EvalOptions.DEFAULT_PROMPT), log);
    }
}
