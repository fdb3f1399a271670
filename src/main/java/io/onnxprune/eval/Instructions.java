// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.Arrays;
import java.util.Optional;

/**
 * Reads instruction data from JSON lines. The fields instruction, input (optional) and output are put into the prompt
 * template of Stanford Alpaca (github.com/tatsu-lab/stanford_alpaca), as in LLM-Pruner's recovery. The fields prompt
 * and completion are used without a template.
 */
final class Instructions {
    private static final String BEGINNING = "Below is an instruction that describes a task";
    private static final String WITH_INPUT = BEGINNING
            + ", paired with an input that provides further context. Write a response that appropriately completes the"
            + " request.\n\n### Instruction:\n%s\n\n### Input:\n%s\n\n### Response:\n";
    private static final String WITHOUT_INPUT = BEGINNING
            + ". Write a response that appropriately completes the request.\n\n### Instruction:\n%s\n\n### Response:\n";

    private Instructions() {}

    /**
     * A prompt and its answer.
     *
     * @param answer the text to be learned
     */
    record Exchange(String prompt, String answer) {
        /**
         * Encodes prompt and answer together. The prompt ends where the tokens first differ from those of the prompt
         * alone, because a tokenizer may merge its end with the beginning of the answer.
         */
        TokenData.Piece encode(TextTokenizer tokenizer) {
            long[] prompted = tokenizer.encode(prompt);
            long[] both = tokenizer.encode(prompt + answer);
            int common = Arrays.mismatch(prompted, both);
            return new TokenData.Piece(both, common < 0 ? both.length : common);
        }
    }

    /** The prompt and answer of a line; empty when it has neither pair of fields. */
    static Optional<Exchange> of(JsonNode line) {
        if (line.path("instruction").isTextual() && line.path("output").isTextual()) {
            String instruction = line.path("instruction").asText();
            String input = line.path("input").asText("");
            String prompt =
                    input.isBlank() ? WITHOUT_INPUT.formatted(instruction) : WITH_INPUT.formatted(instruction, input);
            return Optional.of(new Exchange(prompt, line.path("output").asText()));
        }
        return line.path("prompt").isTextual() && line.path("completion").isTextual()
                ? Optional.of(new Exchange(
                        line.path("prompt").asText(), line.path("completion").asText()))
                : Optional.empty();
    }
}
