// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import io.onnxprune.diag.CacheFolder;
import io.onnxprune.diag.InputFiles;
import io.onnxprune.emit.ModelFolder;
import io.onnxprune.emit.RunFiles;
import io.onnxprune.measure.AnalysedModel;
import io.onnxprune.plan.ParameterCount;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.RuntimeOptions;
import java.nio.file.Path;
import java.util.List;

/** Finds what can be pruned in a model, and what cannot: {@code Inspector.builder(model).build().run(listener)}. */
public final class Inspector {
    private final ModelFolder input;
    private final RuntimeOptions runtime;

    /**
     * What was found.
     *
     * @param file of the model
     * @param model with its dimensions, blocks and what pins them
     * @param count its parameters
     */
    public record Inspection(Path file, AnalysedModel model, ParameterCount count) {}

    private Inspector(ModelFolder input, RuntimeOptions runtime) {
        this.input = input;
        this.runtime = runtime;
    }

    /** Begins to describe an inspection of an .onnx file, or of a folder with model.onnx. */
    public static Builder builder(Path model) {
        return new Builder(model);
    }

    /** The files that are read. */
    public RunFiles files() {
        return new RunFiles().reads(input).reads(runtime.library());
    }

    /**
     * Does the work.
     *
     * @throws io.onnxprune.diag.UserException if the model cannot be read or run
     */
    public Inspection run(ProgressListener listener) {
        CacheFolder.warning().ifPresent(listener::warn);
        try (OnnxRuntime open = OnnxRuntime.open(runtime)) {
            return run(open, listener);
        }
    }

    /** Does the work on a runtime that is open already. */
    public Inspection run(OnnxRuntime open, ProgressListener listener) {
        InputFiles inputs = InputFiles.unread(List.of(input.model()));
        return inputs.guard(() -> {
            AnalysedModel model = AnalysedModel.load(input.model(), open, listener);
            Inspection found = new Inspection(input.model(), model, ParameterCount.of(model.structure()));
            inputs.requireUnchanged();
            return found;
        });
    }

    /** The description of an inspection. */
    public static final class Builder {
        private final Path model;
        private RuntimeOptions runtime = RuntimeOptions.cpu();

        private Builder(Path model) {
            this.model = model;
        }

        /** Sets where models run; on all cores of the CPU by default. */
        public Builder runtime(RuntimeOptions options) {
            runtime = options;
            return this;
        }

        /**
         * Checks the description.
         *
         * @throws io.onnxprune.diag.UserException if there is no model
         */
        public Inspector build() {
            return new Inspector(ModelFolder.of(model), runtime);
        }
    }
}
