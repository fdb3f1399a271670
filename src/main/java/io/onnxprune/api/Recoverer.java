// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import io.onnxprune.algebra.Blas;
import io.onnxprune.diag.CacheFolder;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.Fingerprint;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.PassClock;
import io.onnxprune.diag.UsageException;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Structure;
import io.onnxprune.emit.Emitter;
import io.onnxprune.emit.ModelFolder;
import io.onnxprune.emit.OutputTarget;
import io.onnxprune.eval.CausalLm;
import io.onnxprune.eval.Example;
import io.onnxprune.eval.Perplexity;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Tensor;
import io.onnxprune.measure.AnalysedModel;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.option.Extensions;
import io.onnxprune.passes.RecoverPass;
import io.onnxprune.plan.Plan;
import io.onnxprune.recipe.PassStep;
import io.onnxprune.recover.AdapterFile;
import io.onnxprune.recover.Recovery;
import io.onnxprune.recover.Recovery.Learned;
import io.onnxprune.recover.TrainingOptions;
import io.onnxprune.recover.TrainingReport;
import io.onnxprune.recover.TrainingRows;
import io.onnxprune.rewrite.AdapterInputs;
import io.onnxprune.rewrite.AdapterInputs.Names;
import io.onnxprune.rewrite.Slicer;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.RuntimeOptions;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.function.Consumer;
import java.util.stream.Stream;

/** Trains a model and writes it again with other weights, or with adapters beside them. */
public final class Recoverer {
    /** Weights and adapters of half precision are rounded when they are written. */
    private static final double TOLERANCE = 5e-3;

    private final Builder job;
    private final ModelFolder input;
    private final OutputTarget target;
    private final TrainingOptions options;

    /** The result of a training. */
    public record Report(TrainingReport training, Emitter.Emission emission) {
        /** The content of the JSON report, as docs/json.md says. */
        public Map<String, Object> toJson() {
            Map<String, Object> json = new LinkedHashMap<>(training.toJson());
            json.put("held_out_loss", training.best());
            json.put("held_out_perplexity", Math.exp(training.best()));
            json.put("output", emission.files().get(0).toString());
            json.put("files", emission.files().stream().map(Path::toString).toList());
            return json;
        }
    }

    private Recoverer(Builder job) {
        this.job = job;
        this.options = job.options();
        this.input = ModelFolder.of(job.model);
        this.target = OutputTarget.of(input, job.output);
    }

    /**
     * Begins to describe a training.
     *
     * @param model an .onnx file, or a folder with model.onnx
     * @param data rows to train on: jsonl, .npy of token ids, or text
     * @param output where the trained model goes
     */
    public static Builder builder(Path model, Path data, Path output) {
        return new Builder(model, data, output);
    }

    /** The model's files, and all other files that the run reads. */
    public List<Path> inputs() {
        List<Path> files = new ArrayList<>(List.of(input.model(), job.data));
        files.addAll(input.companions());
        job.evaluation.ifPresent(files::add);
        job.tokenizer.ifPresent(files::add);
        return files;
    }

    /**
     * Does the work.
     *
     * @throws UserException if it cannot be done; nothing is left at the output then
     */
    public Report run(ProgressListener listener) {
        Blas.setThreads(
                job.runtime.threads() > 0 ? job.runtime.threads() : Runtime.getRuntime().availableProcessors());
        try (OnnxRuntime runtime = OnnxRuntime.open(job.runtime)) {
            return run(runtime, listener);
        }
    }

    /** Does the work on a runtime that is open already. */
    public Report run(OnnxRuntime runtime, ProgressListener listener) {
        return new Run(runtime, listener).run();
    }

    /** The description of a training. Every method returns the builder. */
    public static final class Builder {
        private static final int USUAL_LENGTH = 256;

        private final Path model;
        private final Path data;
        private final Path output;
        private Optional<Path> evaluation = Optional.empty();
        private Optional<Path> tokenizer = Optional.empty();
        private int length = USUAL_LENGTH;
        private Optional<Path> teacher = Optional.empty();
        private final Map<String, String> training = new LinkedHashMap<>();
        private boolean keepAdapters;
        private boolean externalData;
        private boolean resume;
        private Optional<Path> artifacts = Optional.empty();
        private Optional<Path> workFolder = Optional.empty();
        private long seed;
        private RuntimeOptions runtime = RuntimeOptions.cpu();

        private Builder(Path model, Path data, Path output) {
            this.model = model;
            this.data = data;
            this.output = output;
        }

        /** Sets held-out data; by default a twentieth of the rows, at most 64, is left out. */
        public Builder evaluation(Path file) {
            evaluation = Optional.of(file);
            return this;
        }

        /** Sets the tokenizer.json for text; by default the one beside the model. */
        public Builder tokenizer(Path file) {
            tokenizer = Optional.of(file);
            return this;
        }

        /** Sets the tokens of the longest row; 256 by default. */
        public Builder sequenceLength(int tokens) {
            if (tokens < 2) {
                throw new UsageException(
                        "--seq-len takes 2 or more, since a prediction takes two tokens, not " + tokens);
            }
            length = tokens;
            return this;
        }

        /** Sets a model whose predictions are learned. */
        public Builder teacher(Path file) {
            teacher = Optional.of(ModelFolder.of(file).model());
            return this;
        }

        /** Changes an option of the training, by its key in recover passes of recipes; defaults are those of LLM-Pruner. */
        public Builder training(String key, String value) {
            training.put(key, value);
            return this;
        }

        /** Leaves the weights as they are, and gives the model inputs for adapters and a file of them. */
        public Builder keepAdapters(boolean wanted) {
            keepAdapters = wanted;
            return this;
        }

        /** Keeps weights outside the model file. */
        public Builder externalData(boolean wanted) {
            externalData = wanted;
            return this;
        }

        /** Goes on where a training like this one was stopped. */
        public Builder resume(boolean wanted) {
            resume = wanted;
            return this;
        }

        /** Sets a folder for a copy of the files that the training session is made of. */
        public Builder artifacts(Path folder) {
            artifacts = Optional.of(folder);
            return this;
        }

        /** Sets the folder for graphs and checkpoints; by default in the user's cache folder. */
        public Builder workFolder(Path folder) {
            workFolder = Optional.of(folder);
            return this;
        }

        /** Sets the seed of every random choice; 0 by default. */
        public Builder seed(long value) {
            seed = value;
            return this;
        }

        /** Sets where models run; on all cores of the CPU by default. */
        public Builder runtime(RuntimeOptions changed) {
            runtime = changed;
            return this;
        }

        /**
         * Checks the description.
         *
         * @throws UsageException if it cannot be, or if a setting has no effect
         * @throws UserException if the model's files are missing
         */
        public Recoverer build() {
            return new Recoverer(this);
        }

        private Path workFolder() {
            return workFolder.orElseGet(() -> CacheFolder.path().resolve("work"));
        }

        private TrainingOptions options() {
            for (String option : List.of("distill-weight", "temperature")) {
                if (teacher.isEmpty() && training.containsKey(option)) {
                    throw new UsageException("--" + option + " is for --distill TEACHER, which was not given");
                }
            }
            PassStep recover = RecipeSettings.published(Extensions.BUILT_IN);
            recover = teacher.isEmpty() ? recover : recover.with("distill-weight", "1");
            for (Map.Entry<String, String> value : training.entrySet()) {
                recover = RecipeSettings.withOption(recover, value.getKey(), value.getValue());
            }
            TrainingOptions found = ((RecoverPass) recover.pass()).options(seed);
            if (teacher.isPresent() && found.distillation() == 0) {
                throw new UsageException(
                        "--distill-weight 0 leaves nothing to learn from --distill; give one of them");
            }
            if (keepAdapters && found.mode() != TrainingOptions.Mode.LORA) {
                throw new UsageException("--keep-adapters is for --train lora, which trains some");
            }
            return found;
        }
    }

    /** One training. */
    private final class Run {
        private final OnnxRuntime runtime;
        private final Log log;
        private final PassClock clock;

        Run(OnnxRuntime runtime, Log log) {
            this.runtime = runtime;
            this.log = log;
            this.clock = new PassClock(log);
        }

        private Report run() {
            runtime.requireTraining();
            job.artifacts.ifPresent(Run::create);
            Path file = input.model();
            Model model = clock.timed("import", () -> ModelReader.read(file));
            Structure structure = clock.timed("infer-dimensions", () -> AnalysedModel.of(model, runtime, log))
                    .structure();
            TrainingRows data = clock.timed("data", () -> data(file));
            String hash = clock.timed("hash", () -> Fingerprint.of(file));
            Path folder = folder(hash, data);
            if (job.resume && !Files.isDirectory(folder)) {
                log.warn("there is no training of this model, on these data and with these options, to resume in "
                        + job.workFolder() + "; it begins anew");
            }
            Recovery.Result result = clock.timed(
                    "train",
                    () -> Recovery.run(
                            structure,
                            data.rows(),
                            data.heldOut(),
                            job.teacher.map(ModelReader::read),
                            options,
                            !job.keepAdapters,
                            folder,
                            job.resume,
                            runtime,
                            log));
            Plan plan = Plan.keepAll(hash);
            Emitter.Emission emission = job.keepAdapters
                    ? beside(structure, plan, result, data, folder)
                    : merged(structure, plan, result, data, folder);
            job.artifacts.ifPresent(target -> copy(folder, target));
            Recovery.discard(folder);
            return new Report(TrainingReport.of(result, data), emission);
        }

        private Emitter.Emission merged(
                Structure structure, Plan plan, Recovery.Result result, TrainingRows data, Path folder) {
            Model trained =
                    clock.timed("merge", () -> Slicer.slice(structure, plan.keep(structure), result.merged(folder)));
            return emit(request(trained, structure, plan), Map.of(), staged -> check(staged, Optional.empty(), result, data));
        }

        /** The model with inputs for adapters, and what was learned in a file. */
        private Emitter.Emission beside(
                Structure structure, Plan plan, Recovery.Result result, TrainingRows data, Path folder) {
            AdapterInputs room = AdapterInputs.of(
                    structure, result.adapters().stream().map(Learned::place).toList());
            Map<String, Tensor> contents = new LinkedHashMap<>();
            for (Learned learned : result.adapters()) {
                Names names = room.inputs().get(learned.place());
                contents.put(names.down(), rounded(learned.down(), names));
                contents.put(names.up(), rounded(learned.up(), names));
            }
            String model = target.model().getFileName().toString();
            String name = model.substring(0, model.lastIndexOf('.')) + AdapterFile.EXTENSION;
            Path adapter = folder.resolve(name);
            AdapterFile.write(adapter, contents);
            return emit(
                    request(room.model(), structure, plan),
                    Map.of(name, adapter),
                    staged -> check(staged, Optional.of(adapter), result, data));
        }

        private static Tensor rounded(Tensor learned, Names names) {
            return Tensor.ofFloats(names.dtype(), learned.shape(), learned.toFloats());
        }

        private Emitter.Emission emit(Emitter.Request request, Map<String, Path> beside, Consumer<Path> check) {
            return clock.timed("emit", () -> {
                try (Emitter.Staged staged = Emitter.stage(request, beside, log)) {
                    check.accept(staged.model());
                    return staged.commit();
                }
            });
        }

        private Emitter.Request request(Model model, Structure structure, Plan plan) {
            return new Emitter.Request(model, structure, plan, input, target, job.externalData);
        }

        /** A folder of its own for each kind of training: what decides how it goes is in the name. */
        private Path folder(String hash, TrainingRows data) {
            List<Example> all =
                    Stream.concat(data.rows().stream(), data.heldOut().stream()).toList();
            List<Object> parts = List.of(
                    hash,
                    job.teacher.map(Fingerprint::of).orElse(""),
                    options,
                    job.keepAdapters,
                    data.rows().size(),
                    all.stream().map(Example::first).toList());
            return job.workFolder()
                    .resolve("recover-"
                            + Fingerprint.of(parts, all.stream().map(Example::tokens).toList()));
        }

        private static void create(Path folder) {
            try {
                Files.createDirectories(folder);
            } catch (IOException e) {
                throw new UserException("cannot write to " + folder + ": " + FileFailure.reason(e), e);
            }
        }

        /** The graphs and the checkpoint that ONNX Runtime's training API begins with. */
        private static void copy(Path folder, Path target) {
            try {
                for (Path file : Recovery.artifacts(folder)) {
                    Files.copy(file, target.resolve(file.getFileName()), StandardCopyOption.REPLACE_EXISTING);
                }
            } catch (IOException e) {
                throw new UserException("cannot write to " + target + ": " + FileFailure.reason(e), e);
            }
        }

        /** What was written is to be as good as what was trained. */
        private void check(Path staged, Optional<Path> adapter, Recovery.Result result, TrainingRows data) {
            try (CausalLm model = CausalLm.open(runtime, staged, adapter, log)) {
                double found = Perplexity.ofExamples(model, data.heldOut(), log).nll();
                if (!(Math.abs(found - result.best()) <= TOLERANCE * Math.max(1, result.best()))) {
                    throw new UserException(String.format(
                            Locale.ROOT,
                            "the model with what was learned has a held-out loss of %.5f, but %.5f was trained; nothing was"
                                    + " written, please report this model",
                            found,
                            result.best()));
                }
            }
        }

        private TrainingRows data(Path file) {
            long vocabulary;
            TrainingRows rows;
            try (CausalLm model = CausalLm.open(runtime, file, log)) {
                vocabulary = model.vocabulary();
                rows = TrainingRows.read(
                        new TrainingRows.Source(job.data, job.evaluation, job.tokenizer, job.length),
                        model,
                        file,
                        log);
            }
            job.teacher.ifPresent(teacher -> requireVocabulary(teacher, vocabulary));
            return rows;
        }

        private void requireVocabulary(Path teacher, long vocabulary) {
            long other;
            try (CausalLm model = CausalLm.open(runtime, teacher, log)) {
                other = model.vocabulary();
            }
            if (other != vocabulary) {
                throw new UserException(String.format(
                        Locale.ROOT,
                        "the teacher %s predicts %,d tokens and the model %,d; --distill takes one of the same vocabulary, such as"
                                + " the model before pruning",
                        teacher,
                        other,
                        vocabulary));
            }
        }
    }
}
