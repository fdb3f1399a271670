// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import java.nio.file.Path;
import java.util.Optional;
import java.util.OptionalInt;

/**
 * Options of the evaluation of a model.
 *
 * @param data the data file, as {@link TokenData#read} takes it
 * @param tokenizer the tokenizer for text; by default tokenizer.json beside the model
 * @param adapter an adapter file of ONNX Runtime (.onnx_adapter), for a model with inputs for one
 * @param sides files for inputs that do not follow from token ids
 * @param windows how rows are cut
 * @param promptLength length in tokens of the prompt for speed; empty to skip measuring speed
 */
public record EvalOptions(
        Path data,
        Optional<Path> tokenizer,
        Optional<Path> adapter,
        SideFiles sides,
        Windows windows,
        OptionalInt promptLength) {
    /** Default length in tokens of the prompt for measuring speed. */
    public static final int DEFAULT_PROMPT = 128;

    /** Options with all defaults. */
    public static EvalOptions of(Path data) {
        return new EvalOptions(
                data,
                Optional.empty(),
                Optional.empty(),
                SideFiles.NONE,
                Windows.WHOLE,
                OptionalInt.of(DEFAULT_PROMPT));
    }

    /** A copy of these options without measuring speed. */
    public EvalOptions withoutLatency() {
        return new EvalOptions(data, tokenizer, adapter, sides, windows, OptionalInt.empty());
    }
}
