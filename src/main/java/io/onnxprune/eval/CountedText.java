// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import io.onnxprune.diag.Log;
import java.nio.file.Path;
import java.util.Optional;

/**
 * Data of a run with the number of times that each token occurs.
 *
 * @param data the rows to calibrate on and the held-out rows
 * @param counts by token id, over all of the calibration files except what is held out
 */
@SuppressWarnings("ArrayRecordComponent") // plain data, never compared
public record CountedText(CalibrationData data, long[] counts) {
    /**
     * Reads the files of a request.
     *
     * @param model the model's file; its configuration and tokenizer are looked for in the same folder
     * @param vocabulary number of token ids of the model
     * @throws io.onnxprune.diag.UserException when data cannot be read, is too short, or does not fit the model
     */
    public static CountedText read(DataRequest request, Path model, int vocabulary, Log log) {
        Optional<Path> tokenizer = request.tokenizer().or(() -> Evaluator.tokenizerBeside(model));
        FileWindows windows = new FileWindows(request, tokenizer, ModelSettings.beside(model, log), log);
        CalibrationData data = windows.read(vocabulary);
        return new CountedText(data, windows.counts(vocabulary));
    }
}
