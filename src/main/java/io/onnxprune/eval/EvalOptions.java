// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import java.nio.file.Path;
import java.util.Optional;
import java.util.OptionalInt;

/**
 * What to evaluate a model on.
 *
 * @param data the data file, as {@link TokenData#read} takes it
 * @param tokenizer the tokenizer for text; by default tokenizer.json beside the model
 * @param sequenceLength tokens of a window; by default rows stay as they are
 * @param adapter an adapter file of ONNX Runtime (.onnx_adapter), for a model with inputs for one
 * @param promptLength tokens of the prompt that speed is measured with; empty to leave speed out
 */
public record EvalOptions(
        Path data,
        Optional<Path> tokenizer,
        Optional<Path> adapter,
        OptionalInt sequenceLength,
        OptionalInt promptLength) {
    /** Tokens of the prompt that speed is measured with unless asked otherwise. */
    public static final int DEFAULT_PROMPT = 128;

    /** Everything by default. */
    public static EvalOptions of(Path data) {
        return new EvalOptions(
                data, Optional.empty(), Optional.empty(), OptionalInt.empty(), OptionalInt.of(DEFAULT_PROMPT));
    }

    /** The same without measuring speed. */
    public EvalOptions withoutLatency() {
        return new EvalOptions(data, tokenizer, adapter, sequenceLength, OptionalInt.empty());
    }
}
