// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.measure;

import io.onnxprune.diag.Log;
import io.onnxprune.dims.DimensionAnalysis;
import io.onnxprune.dims.Structure;
import io.onnxprune.dims.TensorSequences;
import io.onnxprune.dims.Trace;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program;
import io.onnxprune.onnx.FunctionInliner;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.runtime.OnnxRuntime;
import java.nio.file.Path;

/**
 * An imported model with its inferred dimensions.
 *
 * @param model the model
 * @param structure its dimensions and residual stream
 */
public record AnalysedModel(Model model, Structure structure) {
    /**
     * Imports and analyses {@code file}.
     *
     * @throws io.onnxprune.diag.UserException if the file cannot be read, or ONNX Runtime cannot run the model
     */
    public static AnalysedModel load(Path file, OnnxRuntime runtime, Log log) {
        return of(ModelReader.read(file, log), runtime, log);
    }

    /**
     * Analyses an imported model. Calls of model-local functions are replaced by their bodies first, and sequences of
     * tensors by the tensors.
     */
    public static AnalysedModel of(Model imported, OnnxRuntime runtime, Log log) {
        Model model = TensorSequences.replace(FunctionInliner.inline(imported), runtime, log);
        Program program = Program.of(model);
        Trace trace = Trace.of(program, runtime, log);
        return new AnalysedModel(model, Structure.of(DimensionAnalysis.of(program, trace)));
    }
}
