// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Widening;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.Session;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import java.util.function.BiConsumer;
import java.util.function.Supplier;

/** Opens a model file as it would be served, or else in another form that the runtime loads. */
final class ServedModel {
    /** A part of the runtime's messages when memory is exhausted. */
    static final String OUT_OF_MEMORY = "out of memory";

    private static final String UNOPTIMISED = "without its optimisations";
    private static final String WIDENED = "in float32";

    private ServedModel() {}

    /**
     * Opens a file, optimised by the runtime. If that fails (because of a defect of a fusion, or on a provider without
     * half-precision kernels), it is opened without optimisation, or else in float32.
     *
     * @param log receives a warning when the model is not run as it would be served
     * @throws UserException when no form can be loaded
     */
    static Session open(OnnxRuntime runtime, Path model, Optional<Path> adapter, Log log) {
        Map<String, Supplier<Session>> others = new LinkedHashMap<>();
        others.put(UNOPTIMISED, () -> runtime.open(model, adapter, false));
        others.put(WIDENED, () -> runtime.open(Widening.widen(ModelReader.read(model)), adapter, true));
        return first(
                () -> runtime.open(model, adapter, true),
                others,
                (form, failure) -> log.warn("this runtime loads %s only %s, which runs slower: %s"
                        .formatted(model, form, failure.getMessage())));
    }

    /** Opens a model in memory as a file that holds it. */
    static Session open(OnnxRuntime runtime, Model model) {
        Map<String, Supplier<Session>> others = new LinkedHashMap<>();
        others.put(UNOPTIMISED, () -> runtime.open(model, false));
        others.put(WIDENED, () -> runtime.open(Widening.widen(model), true));
        return first(() -> runtime.open(model, true), others, (form, failure) -> {});
    }

    /** The first form that loads. The first failure is the one to report. */
    private static Session first(
            Supplier<Session> served, Map<String, Supplier<Session>> others, BiConsumer<String, UserException> told) {
        UserException failure;
        try {
            return served.get();
        } catch (UserException e) {
            failure = e;
        }
        for (Map.Entry<String, Supplier<Session>> other : others.entrySet()) {
            if (failure.getMessage().contains(OUT_OF_MEMORY)) {
                break;
            }
            try {
                Session session = other.getValue().get();
                told.accept(other.getKey(), failure);
                return session;
            } catch (UserException stillFailing) {
                // The next form may load.
            }
        }
        throw failure;
    }
}
