// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import io.onnxprune.diag.InputFiles;
import io.onnxprune.diag.PassClock;
import io.onnxprune.diag.ProcessMemory;
import io.onnxprune.diag.UsageException;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Structure;
import io.onnxprune.emit.ModelFolder;
import io.onnxprune.eval.CalibrationData;
import io.onnxprune.eval.CausalLm;
import io.onnxprune.eval.DataRequest;
import io.onnxprune.eval.EvalOptions;
import io.onnxprune.eval.Evaluation;
import io.onnxprune.eval.Evaluator;
import io.onnxprune.eval.Similarity;
import io.onnxprune.ir.Model;
import io.onnxprune.latency.Timing;
import io.onnxprune.measure.AnalysedModel;
import io.onnxprune.measure.StatisticsProvider;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.pass.DenseModel;
import io.onnxprune.pass.Pass;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PassManager;
import io.onnxprune.pass.PruningState;
import io.onnxprune.pass.RunData;
import io.onnxprune.pass.RunSettings;
import io.onnxprune.pass.Scheduled;
import io.onnxprune.passes.CalibratePass;
import io.onnxprune.passes.RecoverPass;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.ParameterCount;
import io.onnxprune.plan.PlanFile;
import io.onnxprune.recover.TrainingRows;
import io.onnxprune.runtime.ModelInterface;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.SideInputs;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.Set;

/** One run of a {@link Pruner}: reads the model and the data, and lets the pass manager run the recipe. */
final class PruneRun {
    private final Pruner pruner;
    private final Pruner.Builder settings;
    private final RunSetup setup;
    private final ProgressListener listener;
    private final Optional<SharedRuns> shared;
    private final PassClock clock;
    private final InputFiles inputs;
    private Optional<Evaluation> before = Optional.empty();
    private boolean evaluates;
    private SideInputs sides = SideInputs.NONE;
    private Optional<TrainingRows> training = Optional.empty();

    /**
     * Settles the recipe and the data, before anything is opened.
     *
     * @throws UsageException if settings do not go together
     */
    PruneRun(Pruner pruner, ProgressListener listener) {
        this(pruner, listener, Optional.empty());
    }

    /** A run that shares what it can with other runs. */
    PruneRun(Pruner pruner, ProgressListener listener, Optional<SharedRuns> shared) {
        this.pruner = pruner;
        this.shared = shared;
        this.settings = pruner.settings();
        this.listener = listener;
        this.clock = new PassClock(listener);
        this.inputs = InputFiles.of(settings.recipe().file().stream().toList());
        this.setup = new RunSetup(pruner, listener);
        settings.plan().ifPresent(PlanFile::require);
    }

    /** Does the work. */
    PruneReport on(OnnxRuntime runtime) {
        clock.timed("hash", () -> inputs.add(pruner.files().inputs()));
        return inputs.guard(() -> pruned(runtime));
    }

    private PruneReport pruned(OnnxRuntime runtime) {
        Path file = pruner.input().model();
        if (setup.recipe().has("recover")) {
            runtime.requireTraining();
        }
        Model model = clock.timed("import", () -> ModelReader.read(file, listener));
        List<String> weights = clock.timed("hash", () -> weights(model));
        Structure structure = clock.timed("infer-dimensions", () -> AnalysedModel.of(model, runtime, listener))
                .structure();
        DenseModel dense = DenseModel.of(model, structure, inputs.hash(file)).with(new Timing(runtime, file, listener));
        if (dense.given().parameters() == 0) {
            throw new UserException(file + " has no parameters, so there is nothing to prune");
        }
        sides = sides(model, runtime);
        try (SideInputs closed = sides;
                StatisticsProvider statistics = statistics(dense, weights, runtime)) {
            double share = clock.timed("size-target", () -> share(dense));
            List<Scheduled> schedule = setup.recipe().schedule(repeat -> repeat.count(share));
            PassContext context = new PassContext(
                    runSettings(),
                    RunData.NONE,
                    statistics,
                    runtime,
                    new PassContext.Position(schedule, 0, Optional.empty()),
                    listener);
            PassManager manager = new PassManager(
                    schedule,
                    context,
                    new PassManager.Instruments(clock, listener, settings.dumpIr(), inputs, weights),
                    shared.map(SharedRuns::steps));
            settings.dumpIr().ifPresent(folder -> manager.dump(folder, "import", model));
            check(manager, dense, context);
            Optional<CalibrationData> data = data(file, runtime);
            statistics.measureOn(
                    data.filter(CalibrationData::calibrates)
                            .map(CalibrationData::rows)
                            .orElse(List.of()),
                    context.position().all().stream()
                            .mapToDouble(Pass::setAside)
                            .max()
                            .orElse(0));
            PassManager.Result result = manager.run(PruningState.of(dense), new RunData(data, training));
            ModelCard.removeOld(pruner, listener);
            settings.planOut()
                    .ifPresent(path -> PlanFile.write(
                            path, result.state().plan(), result.state().dense().structure()));
            PruneReport report = report(result, data, runtime);
            // The card of a model that lost tokens compares with the original.
            return settings.isReduced() ? report : ModelCard.deliver(report, pruner, listener);
        }
    }

    /** Refuses what cannot work, and names the methods that can. */
    private void check(PassManager manager, DenseModel dense, PassContext context) {
        try {
            manager.check(dense);
        } catch (UsageException e) {
            throw e;
        } catch (UserException e) {
            throw setup.requested()
                    .map(asked -> new OtherMethods(settings.recipe(), dense, context).named(e, asked))
                    .orElse(e);
        }
    }

    /** The hashes of the files with weights outside the model file. */
    private List<String> weights(Model model) {
        Set<Path> files = ModelFolder.weightFiles(model.graph());
        inputs.add(files);
        return files.stream().map(inputs::hash).toList();
    }

    /** The contents of inputs that do not follow from tokens, where the run uses data. */
    private SideInputs sides(Model model, OnnxRuntime runtime) {
        if (setup.request().isEmpty()) {
            return SideInputs.NONE;
        }
        List<Path> data = setup.request().calibration().stream()
                .map(DataRequest.WeightedFile::file)
                .toList();
        return settings.data()
                .sides()
                .open(
                        runtime,
                        pruner.input().model(),
                        ModelInterface.of(model.graph()),
                        data,
                        setup.request().tokenizer(),
                        listener);
    }

    private StatisticsProvider statistics(DenseModel dense, List<String> weights, OnnxRuntime runtime) {
        return new StatisticsProvider(
                new StatisticsProvider.Setup(
                        dense.hash(),
                        weights,
                        settings.statistics(),
                        runSettings().calibration()),
                runtime,
                clock,
                listener);
    }

    /** The share of the parameters that the target comes to. A time is measured for that, so it is in what no data change. */
    private double share(DenseModel dense) {
        return setup.requested().map(dense::share).orElse(1.0);
    }

    private RunSettings runSettings() {
        int draws = setup.recipe()
                .first("calibrate")
                .map(step -> ((CalibratePass) step.pass()).draws())
                .orElse(0);
        return new RunSettings(
                setup.recipe().name(),
                pruner.input(),
                new RunSettings.Delivery(
                        settings.clients(),
                        pruner.target()
                                .map(target -> new RunSettings.Output(
                                        target, settings.externalData(), settings.lastLogits()))),
                settings.calibration().withDraws(draws).withSides(sides),
                setup.seed(),
                settings.threads());
    }

    /** The data of the run. What they tell about the dense model is measured in the same session. */
    private Optional<CalibrationData> data(Path file, OnnxRuntime runtime) {
        Optional<RecoverPass> trains = setup.trainingFile();
        if (setup.request().isEmpty() && trains.isEmpty()) {
            return Optional.empty();
        }
        Optional<SharedRuns.Measured> known =
                shared.filter(runs -> trains.isEmpty()).flatMap(runs -> runs.find(setup.request()));
        if (known.isPresent()) {
            evaluates = pruner.target().isPresent() && known.get().hasLoss();
            before = known.get().before();
            return Optional.of(known.get().data());
        }
        try (CausalLm model = clock.timed("open-model", () -> open(runtime, file))) {
            training = trains.map(
                    pass -> clock.timed("training-data", () -> TrainingRows.read(source(pass), model, file, listener)));
            if (setup.request().isEmpty()) {
                return Optional.empty();
            }
            CalibrationData data = clock.timed(
                    "data",
                    () -> CalibrationData.resolve(
                            model, file, setup.request(), settings.calibration().workFolder(), listener));
            sides.require(data.rows());
            sides.require(data.heldOut());
            evaluates = pruner.target().isPresent() && model.hasLanguageLoss();
            if (evaluates && !settings.isReduced()) {
                before = Optional.of(shared.flatMap(runs -> runs.before(data))
                        .orElseGet(() -> clock.timed("evaluate-before", () -> evaluate(model, data))));
            }
            shared.ifPresent(
                    runs -> runs.keep(setup.request(), new SharedRuns.Measured(data, model.hasLanguageLoss(), before)));
            return Optional.of(data);
        }
    }

    private TrainingRows.Source source(RecoverPass pass) {
        return new TrainingRows.Source(
                pass.file().orElseThrow(),
                Optional.empty(),
                setup.request().tokenizer(),
                pass.rows().seqLen());
    }

    private CausalLm open(OnnxRuntime runtime, Path file) {
        return CausalLm.open(runtime, file, Optional.empty(), sides, listener);
    }

    private Evaluation evaluate(CausalLm model, CalibrationData data) {
        return Evaluator.evaluate(model, data.heldOut(), OptionalInt.of(EvalOptions.DEFAULT_PROMPT), listener);
    }

    private PruneReport report(PassManager.Result result, Optional<CalibrationData> data, OnnxRuntime runtime) {
        Optional<Path> written =
                result.emission().map(emission -> emission.files().get(0));
        Optional<Evaluation> after = written.isEmpty() || !evaluates
                ? Optional.empty()
                : data.map(given -> evaluateAfter(written.get(), given, runtime));
        Optional<Similarity> similarity = written.isEmpty() || evaluates
                ? Optional.empty()
                : data.filter(given -> !given.heldOut().isEmpty())
                        .map(given -> similarity(written.get(), given, runtime));
        PruningState state = result.state();
        ParameterCount count = ParameterCount.of(state.dense().structure());
        return new PruneReport(
                state,
                new PruneReport.Sizes(
                        state.dense().given(),
                        count.under(state.plan()),
                        count.removedDimensions(state.plan()),
                        setup.requested(),
                        setup.requested().flatMap(budget -> reached(budget, state, written))),
                result.emission(),
                new PruneReport.Evaluations(data, before, after, similarity),
                new PruneReport.Effort(clock.times(), ProcessMemory.peakResidentBytes()),
                Optional.empty(),
                setup.seed());
    }

    private Optional<ReachedTarget> reached(Budget requested, PruningState state, Optional<Path> written) {
        return requested.currency().isLimit()
                ? Optional.of(
                        clock.timed("measure-target", () -> ReachedTarget.of(requested, state, written, listener)))
                : Optional.empty();
    }

    private Evaluation evaluateAfter(Path written, CalibrationData data, OnnxRuntime runtime) {
        return clock.timed("evaluate-after", () -> {
            try (CausalLm model = open(runtime, written)) {
                return evaluate(model, data);
            }
        });
    }

    private Similarity similarity(Path written, CalibrationData data, OnnxRuntime runtime) {
        return clock.timed("compare-outputs", () -> {
            try (CausalLm dense = open(runtime, pruner.input().model());
                    CausalLm pruned = open(runtime, written)) {
                return Similarity.measure(dense, pruned, data.heldOut(), listener);
            }
        });
    }
}
