// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Widening;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.Session;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import java.util.function.Supplier;

/** Opens a model file as it would be served, or else in another form that the runtime loads. */
final class ServedModel {
    /** A part of the runtime's messages when memory is exhausted. */
    static final String OUT_OF_MEMORY = "out of memory";

    private ServedModel() {}

    /**
     * Opens a file, optimised by the runtime. If that fails (because of a defect of a fusion, or on a provider without
     * half-precision kernels), it is opened without optimisation, or else in float32.
     *
     * @param log receives a warning when the model is not run as it would be served
     * @throws UserException when no form can be loaded
     */
    static Session open(OnnxRuntime runtime, Path model, Optional<Path> adapter, Log log) {
        UserException failure;
        try {
            return runtime.open(model, adapter, true);
        } catch (UserException e) {
            failure = e;
        }
        Map<String, Supplier<Session>> others = new LinkedHashMap<>();
        others.put("without its optimisations", () -> runtime.open(model, adapter, false));
        others.put("in float32", () -> runtime.open(Widening.widen(ModelReader.read(model)), adapter, true));
        for (Map.Entry<String, Supplier<Session>> other : others.entrySet()) {
            if (failure.getMessage().contains(OUT_OF_MEMORY)) {
                break;
            }
            try {
                Session session = other.getValue().get();
                log.warn("this runtime loads %s only %s, which runs slower: %s"
                        .formatted(model, other.getKey(), failure.getMessage()));
                return session;
            } catch (UserException stillFailing) {
                // The first failure is the one to report.
            }
        }
        throw failure;
    }
}
