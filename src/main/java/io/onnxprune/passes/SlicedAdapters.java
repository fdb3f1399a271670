// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.passes;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.TemporaryFolder;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.pass.PruningState;
import io.onnxprune.recover.AdapterFile;
import io.onnxprune.rewrite.Slicer;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;

/** The adapters beside a model, cut to the inputs of the pruned model that takes them. */
final class SlicedAdapters {
    private final Structure structure;
    private final Dim.Keep keep;
    private final Model pruned;
    private final Log log;

    SlicedAdapters(PruningState state, Log log) {
        this.structure = state.dense().structure();
        this.keep = state.plan().keep(structure);
        this.pruned = state.output().model().orElseThrow();
        this.log = log;
    }

    /**
     * Writes the sliced adapters. One that does not belong to the model, or cannot be read, is left out with a warning.
     *
     * @param adapters by the names that they get, the files
     * @return by the same names, temporary files
     */
    Map<String, Path> write(Map<String, Path> adapters) {
        Map<String, Path> written = new LinkedHashMap<>();
        adapters.forEach((name, file) -> {
            try {
                Map<String, Tensor> tensors = sliced(AdapterFile.read(file));
                Path temporary = TemporaryFolder.create("onnx-prune-adapter").resolve(name);
                AdapterFile.write(temporary, tensors);
                written.put(name, temporary);
                log.info("the adapter " + file + " is cut to the pruned model, as " + name);
            } catch (UserException e) {
                log.warn("the adapter " + file + " does not fit the pruned model: " + e.getMessage());
            }
        });
        return written;
    }

    private Map<String, Tensor> sliced(Map<String, Tensor> tensors) {
        Map<String, Tensor> sliced = new LinkedHashMap<>();
        tensors.forEach((name, tensor) -> {
            Value input = structure.analysis().program().initializers().get(name);
            if (input == null) {
                throw new UserException("the model has no optional input \"" + name + '"');
            }
            // Without the layer that reads it, there is no such input any more.
            if (pruned.graph().initializers().containsKey(name)) {
                sliced.put(name, Slicer.sliceLike(structure, keep, input, tensor));
            }
        });
        if (sliced.isEmpty()) {
            throw new UserException("none of its inputs is left");
        }
        return sliced;
    }
}
