// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import io.onnxprune.algebra.Blas;
import io.onnxprune.diag.CacheFolder;
import io.onnxprune.diag.UsageException;
import io.onnxprune.diag.UserException;
import io.onnxprune.emit.Emitter;
import io.onnxprune.emit.ModelFolder;
import io.onnxprune.emit.OutputTarget;
import io.onnxprune.emit.RunFiles;
import io.onnxprune.option.Extensions;
import io.onnxprune.passes.RecoverPass;
import io.onnxprune.recipe.PassStep;
import io.onnxprune.recover.AdapterFile;
import io.onnxprune.recover.Recovery;
import io.onnxprune.recover.TrainingOptions;
import io.onnxprune.recover.TrainingReport;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.RuntimeOptions;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/** Trains a model and writes it again with other weights, or with adapters beside them. */
public final class Recoverer {
    private final Builder job;
    private final ModelFolder input;
    private final OutputTarget target;

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
        job.options();
        this.input = ModelFolder.of(job.model);
        this.target = OutputTarget.of(input, job.output);
        files().check();
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

    Builder job() {
        return job;
    }

    ModelFolder input() {
        return input;
    }

    OutputTarget target() {
        return target;
    }

    /** All files that the run reads and writes. */
    public RunFiles files() {
        RunFiles files = new RunFiles()
                .reads(input)
                .reads(List.of(job.data))
                .reads(job.evaluation)
                .reads(job.tokenizer)
                .reads(job.runtime.library());
        job.teacher.ifPresent(teacher -> files.reads(ModelFolder.of(teacher)));
        files.writes(target, input);
        if (job.keepAdapters) {
            files.writes("-o", target.folder().resolve(target.adapterName(AdapterFile.EXTENSION)));
        }
        job.artifacts.ifPresent(
                folder -> files.writesInto("--export-training-artifacts", folder, Recovery::isArtifact));
        job.workFolder.ifPresent(folder -> files.worksIn("--work-dir", folder));
        return files;
    }

    /**
     * Does the work.
     *
     * @throws UserException if it cannot be done; nothing is left at the output then
     */
    public Report run(ProgressListener listener) {
        CacheFolder.warning().ifPresent(listener::warn);
        Blas.setThreads(
                job.runtime.threads() > 0
                        ? job.runtime.threads()
                        : Runtime.getRuntime().availableProcessors());
        try (OnnxRuntime runtime = OnnxRuntime.open(job.runtime)) {
            return run(runtime, listener);
        }
    }

    /** Does the work on a runtime that is open already. */
    public Report run(OnnxRuntime runtime, ProgressListener listener) {
        AlgebraDevice.select(runtime);
        return new RecoverRun(this, runtime, listener).run();
    }

    /** The description of a training. Every method returns the builder. */
    public static final class Builder {
        private static final int USUAL_LENGTH = 256;

        private final Path model;
        final Path data;
        private final Path output;
        Optional<Path> evaluation = Optional.empty();
        Optional<Path> tokenizer = Optional.empty();
        int length = USUAL_LENGTH;
        Optional<Path> teacher = Optional.empty();
        private final Map<String, String> training = new LinkedHashMap<>();
        boolean keepAdapters;
        boolean externalData;
        boolean resume;
        Optional<Path> artifacts = Optional.empty();
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

        Path workFolder() {
            return workFolder.orElseGet(() -> CacheFolder.path().resolve("work"));
        }

        TrainingOptions options() {
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
            if (teacher.isPresent() && found.distillation().distillWeight() == 0) {
                throw new UsageException("--distill-weight 0 leaves nothing to learn from --distill; give one of them");
            }
            if (keepAdapters && found.trained().train() != TrainingOptions.Mode.LORA) {
                throw new UsageException("--keep-adapters is for --train lora, which trains some");
            }
            return found;
        }
    }
}
