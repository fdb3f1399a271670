// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import io.onnxprune.algebra.Blas;
import io.onnxprune.calibrate.CalibrationOptions;
import io.onnxprune.diag.CacheFolder;
import io.onnxprune.diag.UsageException;
import io.onnxprune.emit.Clients;
import io.onnxprune.emit.ModelFolder;
import io.onnxprune.emit.OutputTarget;
import io.onnxprune.emit.RunFiles;
import io.onnxprune.measure.StatisticsProvider;
import io.onnxprune.pass.PassManager;
import io.onnxprune.passes.ApplyPlanPass;
import io.onnxprune.passes.RecoverPass;
import io.onnxprune.recipe.Recipe;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.RuntimeOptions;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.function.Consumer;
import java.util.function.Function;

/**
 * Prunes a model: {@code Pruner.builder(model).output(out).build().run(listener)}. Defaults are those of the command line.
 */
public final class Pruner {
    private final Builder settings;
    private final ModelFolder input;
    private final Optional<OutputTarget> target;

    private Pruner(Builder settings) {
        this.settings = settings;
        this.input = ModelFolder.of(settings.model);
        this.target = settings.output.map(out -> OutputTarget.of(input, out, settings.clients));
        checkClients();
        if (settings.output.isEmpty() && !settings.dryRun) {
            throw new UsageException("no output was named; add -o OUT, or --dry-run to see the plan only");
        }
        // A broken recipe is told before anything is opened.
        settings.recipe.resolve(settings.seed, settings.data.sequenceLength());
        files().check();
    }

    /** Refuses clients that this output is nothing for. */
    private void checkClients() {
        if (settings.clients.all().isEmpty()) {
            return;
        }
        if (target.isPresent() && !target.get().isFolder()) {
            throw new UsageException("--for " + settings.clients
                    + " is about a folder with all files to serve the model; give -o a folder");
        }
        settings.clients.missing(input).ifPresent(missing -> {
            throw new UsageException(
                    "--for " + settings.clients + " needs the file " + missing + " in the folder of " + input.model());
        });
    }

    /** Begins to describe a run. */
    public static Builder builder(Path model) {
        return new Builder(model);
    }

    Builder settings() {
        return settings;
    }

    ModelFolder input() {
        return input;
    }

    Optional<OutputTarget> target() {
        return settings.dryRun ? Optional.empty() : target;
    }

    /** This run with another model, recipe and data. */
    Pruner with(Path model, RecipeSettings recipe, DataSettings data) {
        return new Pruner(new Builder(settings, model, recipe, data));
    }

    /** All files that the run reads and writes. */
    public RunFiles files() {
        Recipe recipe = settings.recipe.resolve(settings.seed, settings.data.sequenceLength());
        RunFiles files = new RunFiles()
                .reads(input)
                .reads(settings.data.inputs())
                .reads(settings.plan)
                .reads(settings.vocabularyKeep)
                .reads(settings.recipe.file())
                .reads(settings.recipe.extensionFiles())
                .reads(settings.statistics
                        .in()
                        .filter(file -> settings.statistics.out().isEmpty()))
                .reads(settings.runtime.library());
        recipe.all("recover").forEach(step -> files.reads(((RecoverPass) step.pass()).file()));
        recipe.all("apply-plan").forEach(step -> files.reads(List.of(((ApplyPlanPass) step.pass()).path())));
        target().ifPresent(out -> {
            files.writes(out, input).reads(out.adapters(input).values());
            out.adapters(input)
                    .keySet()
                    .forEach(name -> files.writes("-o", out.folder().resolve(name)));
        });
        settings.planOut.ifPresent(file -> files.writes("--plan-out", file));
        settings.statistics.out().ifPresent(file -> files.writes("--stats-out", file));
        settings.dumpIr.ifPresent(folder -> files.writesInto("--dump-ir", folder, PassManager::isDump));
        settings.workFolder.ifPresent(folder -> files.worksIn("--work-dir", folder));
        return files;
    }

    /**
     * Does the work.
     *
     * @throws io.onnxprune.diag.UserException if it cannot be done; nothing is left at the output then
     */
    public PruneReport run(ProgressListener listener) {
        Function<OnnxRuntime, PruneReport> run = prepared(listener);
        CacheFolder.warning().ifPresent(listener::warn);
        Blas.setThreads(settings.threads());
        try (OnnxRuntime runtime = OnnxRuntime.open(settings.runtime)) {
            AlgebraDevice.select(runtime);
            return run.apply(runtime);
        }
    }

    /** Does the work on a runtime that is open already; the settings about the runtime have no effect then. */
    public PruneReport run(OnnxRuntime runtime, ProgressListener listener) {
        Function<OnnxRuntime, PruneReport> run = prepared(listener);
        Blas.setThreads(settings.threads());
        AlgebraDevice.select(runtime);
        return run.apply(runtime);
    }

    /** Does the work on a runtime that is open already, and shares what it can with other runs. */
    PruneReport run(OnnxRuntime runtime, ProgressListener listener, SharedRuns shared) {
        boolean reduces = new VocabularyRecipe(this).isAsked();
        return reduces ? run(runtime, listener) : new PruneRun(this, listener, Optional.of(shared)).on(runtime);
    }

    /** The run, after what can be checked before anything is opened. */
    private Function<OnnxRuntime, PruneReport> prepared(ProgressListener listener) {
        VocabularyRecipe recipe = new VocabularyRecipe(this);
        return recipe.isAsked() ? new VocabularyRun(this, recipe, listener)::on : new PruneRun(this, listener)::on;
    }

    /** The description of a run. Every method returns the builder. */
    public static final class Builder {
        private final Path model;
        private final RecipeSettings recipe;
        private final DataSettings data;
        private final boolean reduced;
        private Optional<Path> output = Optional.empty();
        private boolean dryRun;
        private Clients clients = Clients.ANY;
        private Optional<String> baseModel = Optional.empty();
        private Optional<String> command = Optional.empty();
        private boolean externalData;
        private boolean lastLogits;
        private Optional<Path> plan = Optional.empty();
        private Optional<Path> vocabularyKeep = Optional.empty();
        private Optional<Path> planOut = Optional.empty();
        private StatisticsProvider.Files statistics = StatisticsProvider.Files.NONE;
        private Optional<Path> dumpIr = Optional.empty();
        private Optional<Long> seed = Optional.empty();
        private long memory = CalibrationOptions.DEFAULT_MEMORY;
        private boolean memoryGiven;
        private long deviceMemory;
        private Optional<Path> workFolder = Optional.empty();
        private boolean resume;
        private RuntimeOptions runtime = RuntimeOptions.cpu();

        private Builder(Path model) {
            this.model = model;
            this.recipe = new RecipeSettings();
            this.data = new DataSettings();
            this.reduced = false;
        }

        /** The description of the part of a run that follows once the vocabulary was pruned. */
        private Builder(Builder whole, Path model, RecipeSettings recipe, DataSettings data) {
            this.model = model;
            this.recipe = recipe;
            this.data = data;
            this.reduced = true;
            output = whole.output;
            dryRun = whole.dryRun;
            clients = whole.clients;
            externalData = whole.externalData;
            lastLogits = whole.lastLogits;
            statistics = whole.statistics;
            dumpIr = whole.dumpIr;
            seed = whole.seed;
            memory = whole.memory;
            memoryGiven = whole.memoryGiven;
            deviceMemory = whole.deviceMemory;
            workFolder = whole.workFolder;
            resume = whole.resume;
            runtime = whole.runtime;
        }

        /** Sets where the result goes: an .onnx file, or a folder that gets everything needed to serve the model. */
        public Builder output(Path file) {
            output = Optional.of(file);
            return this;
        }

        /** Makes the plan and reports it, but writes no model. */
        public Builder dryRun() {
            dryRun = true;
            return this;
        }

        /** Sets the clients that the output folder is for. What they cannot express is not pruned. */
        public Builder clients(Clients wanted) {
            clients = wanted;
            return this;
        }

        /** Sets the model on a hub that the model card names as the original. */
        public Builder baseModel(String name) {
            baseModel = Optional.of(name);
            return this;
        }

        /** Sets the command that the model card gives. */
        public Builder command(String line) {
            command = Optional.of(line);
            return this;
        }

        /** Keeps weights outside the model file. */
        public Builder externalData(boolean wanted) {
            externalData = wanted;
            return this;
        }

        /** Makes the written model give logits of the last position only, which generation needs. */
        public Builder lastLogits(boolean wanted) {
            lastLogits = wanted;
            return this;
        }

        /** Sets a bundled recipe; {@value RecipeSettings#DEFAULT_METHOD} by default. */
        public Builder method(String name) {
            recipe.method(name);
            return this;
        }

        /** Sets the share of the dense model's parameters to prune, or the share of zeros. */
        public Builder ratio(double share) {
            recipe.allocate("ratio", Double.toString(share));
            return this;
        }

        /** Changes the method: its recipe and the options of its passes. */
        public Builder recipe(Consumer<RecipeSettings> change) {
            change.accept(recipe);
            return this;
        }

        /** Adds a file of calibration data. */
        public Builder calibration(Path file) {
            data.calibration(file, 1);
            return this;
        }

        /** Changes what the run calibrates on and is evaluated on. */
        public Builder data(Consumer<DataSettings> change) {
            change.accept(data);
            return this;
        }

        /**
         * Sets the tokens that stay when the vocabulary is pruned; by default those that the calibration files use most.
         *
         * @param file one token or id a line, or a JSON list of them
         */
        public Builder vocabularyKeep(Path file) {
            vocabularyKeep = Optional.of(file);
            return this;
        }

        /** Applies a plan from a file in place of making one. */
        public Builder plan(Path file) {
            plan = Optional.of(file);
            return this;
        }

        /** Writes the plan to a file. */
        public Builder planOut(Path file) {
            planOut = Optional.of(file);
            return this;
        }

        /** Uses statistics of the dense model from a file, or keeps them in one. */
        public Builder statistics(StatisticsProvider.Files files) {
            statistics = files;
            return this;
        }

        /** Writes the model as text into a folder after each pass. */
        public Builder dumpIr(Path folder) {
            dumpIr = Optional.of(folder);
            return this;
        }

        /** Sets the seed of everything random; 0 by default. */
        public Builder seed(long value) {
            seed = Optional.of(value);
            return this;
        }

        /** Sets the memory in bytes that calibration may take beside the program; 4 GB by default. */
        public Builder memory(long bytes) {
            if (bytes <= 0) {
                throw new UsageException("--memory takes 1 byte or more, like 900MB or 4GB, not \"" + bytes + '"');
            }
            memory = bytes;
            memoryGiven = true;
            return this;
        }

        /** Sets the memory in bytes that calibration may take on a GPU; most of what is free by default. */
        public Builder deviceMemory(long bytes) {
            if (bytes <= 0) {
                throw new UsageException("--device-memory takes 1 byte or more, like 24GB, not \"" + bytes + '"');
            }
            deviceMemory = bytes;
            return this;
        }

        /** Sets the folder for checkpoints and files of the run; by default in the user's cache folder. */
        public Builder workFolder(Path folder) {
            if (Files.exists(folder) && !Files.isDirectory(folder)) {
                throw new UsageException("--work-dir " + folder + " is a file; name a folder");
            }
            workFolder = Optional.of(folder);
            return this;
        }

        /** Goes on where such a run was stopped. */
        public Builder resume(boolean wanted) {
            resume = wanted;
            return this;
        }

        /** Sets where models run; on all cores of the CPU by default. */
        public Builder runtime(RuntimeOptions options) {
            runtime = options;
            return this;
        }

        /**
         * Checks the description.
         *
         * @throws UsageException if it cannot be, or if a setting has no effect
         * @throws io.onnxprune.diag.UserException if the model's files are missing
         */
        public Pruner build() {
            return new Pruner(this);
        }

        Path model() {
            return model;
        }

        RecipeSettings recipe() {
            return recipe;
        }

        DataSettings data() {
            return data;
        }

        boolean isDryRun() {
            return dryRun;
        }

        Clients clients() {
            return clients;
        }

        Optional<String> baseModel() {
            return baseModel;
        }

        Optional<String> command() {
            return command;
        }

        boolean externalData() {
            return externalData;
        }

        boolean lastLogits() {
            return lastLogits;
        }

        Optional<Path> vocabularyKeep() {
            return vocabularyKeep;
        }

        /** Whether the model lost its tokens in this run, so that the original is evaluated elsewhere. */
        boolean isReduced() {
            return reduced;
        }

        Optional<Path> plan() {
            return plan;
        }

        Optional<Path> planOut() {
            return planOut;
        }

        StatisticsProvider.Files statistics() {
            return statistics;
        }

        Optional<Path> dumpIr() {
            return dumpIr;
        }

        Optional<Long> seed() {
            return seed;
        }

        boolean memoryGiven() {
            return memoryGiven;
        }

        boolean runsOnDevice() {
            return runtime.provider() != RuntimeOptions.Provider.CPU;
        }

        boolean deviceMemoryGiven() {
            return deviceMemory > 0;
        }

        boolean resumes() {
            return resume;
        }

        Optional<Path> workFolder() {
            return workFolder;
        }

        RuntimeOptions runtime() {
            return runtime;
        }

        CalibrationOptions calibration() {
            Path folder = workFolder.orElseGet(() -> CacheFolder.path().resolve("work"));
            return new CalibrationOptions(memory, folder, resume).withDeviceMemory(deviceMemory);
        }

        int threads() {
            return runtime.threads() > 0
                    ? runtime.threads()
                    : Runtime.getRuntime().availableProcessors();
        }
    }
}
