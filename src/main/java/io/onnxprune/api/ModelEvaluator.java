// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import io.onnxprune.diag.CacheFolder;
import io.onnxprune.diag.InputFiles;
import io.onnxprune.diag.UsageException;
import io.onnxprune.emit.ModelFolder;
import io.onnxprune.emit.RunFiles;
import io.onnxprune.eval.ChoiceAccuracy;
import io.onnxprune.eval.EvalOptions;
import io.onnxprune.eval.Evaluation;
import io.onnxprune.eval.Evaluator;
import io.onnxprune.eval.SideFiles;
import io.onnxprune.eval.Windows;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.RuntimeOptions;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.function.Supplier;

/**
 * Measures perplexity and speed of a model: {@code ModelEvaluator.builder(model, data).build().run(listener)}. Or measures how
 * often it finds the right one of several options.
 */
public final class ModelEvaluator {
    private final ModelFolder input;
    private final EvalOptions options;
    private final RuntimeOptions runtime;

    private ModelEvaluator(Builder settings) {
        this.input = ModelFolder.of(settings.model);
        this.options = new EvalOptions(
                settings.data,
                settings.tokenizer,
                settings.adapter,
                settings.sides,
                new Windows(settings.sequenceLength, settings.stride),
                settings.prompt);
        this.runtime = settings.runtime;
    }

    /**
     * Begins to describe an evaluation.
     *
     * @param model an .onnx file, or a folder with model.onnx
     * @param data jsonl with input_ids or text, .npy of token ids, or plain text; or a jsonl of questions
     */
    public static Builder builder(Path model, Path data) {
        return new Builder(model, data);
    }

    /** All files that the evaluation reads. */
    public RunFiles files() {
        return new RunFiles()
                .reads(input)
                .reads(List.of(options.data()))
                .reads(options.tokenizer())
                .reads(options.adapter())
                .reads(options.sides().files())
                .reads(runtime.library());
    }

    /** The model's file. */
    public Path model() {
        return input.model();
    }

    /**
     * Does the work.
     *
     * @throws io.onnxprune.diag.UserException if the model or the data cannot be read or run
     */
    public Evaluation run(ProgressListener listener) {
        CacheFolder.warning().ifPresent(listener::warn);
        try (OnnxRuntime open = OnnxRuntime.open(runtime)) {
            return run(open, listener);
        }
    }

    /** Does the work on a runtime that is open already. */
    public Evaluation run(OnnxRuntime open, ProgressListener listener) {
        return guarded(() -> Evaluator.evaluate(open, input.model(), options, listener));
    }

    /**
     * Takes the data for questions with options, and measures how often the model finds the right one.
     *
     * @throws UsageException if windows were set, which questions are not cut into
     * @throws io.onnxprune.diag.UserException if the model or the data cannot be read or run
     */
    public ChoiceAccuracy choices(ProgressListener listener) {
        if (!options.windows().equals(Windows.WHOLE)) {
            throw new UsageException(
                    "--seq-len and --stride cut rows of --data; a question is one row for each option");
        }
        if (!options.sides().arrays().isEmpty()) {
            throw new UsageException("--side goes with the rows of --data, not with questions; leave it out");
        }
        CacheFolder.warning().ifPresent(listener::warn);
        try (OnnxRuntime open = OnnxRuntime.open(runtime)) {
            return guarded(() -> Evaluator.choices(open, input.model(), options, listener));
        }
    }

    private <T> T guarded(Supplier<T> work) {
        InputFiles inputs = InputFiles.of(files().inputs());
        return inputs.guard(() -> {
            inputs.add(ModelFolder.weightFiles(ModelReader.read(input.model()).graph()));
            T found = work.get();
            inputs.requireUnchanged();
            return found;
        });
    }

    /** The description of an evaluation. Every method returns the builder. */
    public static final class Builder {
        private final Path model;
        private final Path data;
        private Optional<Path> tokenizer = Optional.empty();
        private Optional<Path> adapter = Optional.empty();
        private SideFiles sides = SideFiles.NONE;
        private OptionalInt sequenceLength = OptionalInt.empty();
        private OptionalInt stride = OptionalInt.empty();
        private OptionalInt prompt = OptionalInt.of(EvalOptions.DEFAULT_PROMPT);
        private RuntimeOptions runtime = RuntimeOptions.cpu();

        private Builder(Path model, Path data) {
            this.model = model;
            this.data = data;
        }

        /** Sets the tokenizer.json for text; by default the one beside the model. */
        public Builder tokenizer(Path file) {
            tokenizer = Optional.of(file);
            return this;
        }

        /** Sets an .onnx_adapter to run the model with. */
        public Builder adapter(Path file) {
            adapter = Optional.of(file);
            return this;
        }

        /** Sets files for inputs that do not follow from token ids. */
        public Builder sides(SideFiles files) {
            sides = files;
            return this;
        }

        /** Cuts rows into windows of so many tokens. */
        public Builder sequenceLength(int tokens) {
            sequenceLength = OptionalInt.of(tokens);
            return this;
        }

        /** Lets windows begin every so many tokens and overlap; what a window repeats is context and does not count. */
        public Builder stride(int tokens) {
            stride = OptionalInt.of(tokens);
            return this;
        }

        /** Sets the prompt length of the speed measurement; 0 leaves speed out. */
        public Builder prompt(int tokens) {
            if (tokens < 0) {
                throw new UsageException("--prompt takes a number of tokens, or 0 to leave speed out, not " + tokens);
            }
            prompt = tokens == 0 ? OptionalInt.empty() : OptionalInt.of(tokens);
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
         * @throws UsageException if windows cannot be so
         * @throws io.onnxprune.diag.UserException if there is no model
         */
        public ModelEvaluator build() {
            return new ModelEvaluator(this);
        }
    }
}
