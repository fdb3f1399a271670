// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import io.onnxprune.diag.Log;
import io.onnxprune.runtime.ModelInterface;
import java.nio.file.Path;
import java.util.Optional;

/**
 * Data of a run with the number of times that each token occurs.
 *
 * @param data the rows to calibrate on and the held-out rows
 * @param counts by token id, over all of the calibration files except what is held out
 * @param limit most tokens that a row may have
 * @param whole whether the model takes only rows of exactly {@code limit} tokens
 */
@SuppressWarnings("ArrayRecordComponent") // plain data, never compared
public record CountedText(CalibrationData data, long[] counts, int limit, boolean whole) {
    /**
     * Reads the files of a request.
     *
     * @param model the model's file; its configuration and tokenizer are looked for in the same folder
     * @param graph what the model takes
     * @param vocabulary number of token ids of the model
     * @throws io.onnxprune.diag.UserException when data cannot be read, is too short, or does not fit the model
     */
    public static CountedText read(DataRequest request, Path model, ModelInterface graph, int vocabulary, Log log) {
        Optional<Path> tokenizer = request.tokenizer().or(() -> Evaluator.tokenizerBeside(model));
        DataRequest fitted = CalibrationData.fitted(request, graph.fixedLength());
        ModelSettings settings = ModelSettings.beside(model, log);
        FileWindows windows = new FileWindows(fitted, tokenizer, settings, log);
        CalibrationData data = windows.read(vocabulary);
        int limit = settings.fit(graph.fixedLength().orElse(Integer.MAX_VALUE));
        // Text that the model writes sets the length of all rows of a run.
        int longest = request.self() ? Math.min(limit, request.sequenceLength().orElse(limit)) : limit;
        return new CountedText(
                data, windows.counts(vocabulary), longest, graph.fixedLength().isPresent());
    }
}
