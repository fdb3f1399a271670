// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import io.onnxprune.dims.Dimension;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;

/**
 * What became of the tokens of a model.
 *
 * @param before number of token ids before
 * @param after number of token ids that stay
 * @param required number of those that stay whatever is asked: special tokens, single bytes, ...
 * @param sizes sizes of the dimensions of tokens before, by the names of the dimensions
 * @param text what the held-out text became; empty without text, or without a tokenizer
 * @param maxAbsDiff largest difference of the results for kept tokens from the original's; empty where it was not
 *     measured
 */
public record VocabularyReport(
        int before,
        int after,
        int required,
        Map<String, Integer> sizes,
        Optional<HeldOut> text,
        OptionalDouble maxAbsDiff) {
    /**
     * Held-out text in the tokens of both models. Perplexities of tokens are not comparable when the tokens differ; those of
     * bytes are.
     *
     * @param tokensBefore predicted tokens with all tokens
     * @param tokensAfter predicted tokens with the kept ones
     * @param growth tokens of the same text after, relative to those before
     * @param perplexityBefore exp of the mean negative log-likelihood of a byte, of the original
     * @param perplexityAfter that of the result
     */
    public record HeldOut(
            long tokensBefore, long tokensAfter, double growth, double perplexityBefore, double perplexityAfter) {}

    /** The number of indices of a dimension of tokens before. */
    int sizeBefore(Dimension dimension) {
        return sizes.getOrDefault(dimension.name(), dimension.size());
    }

    /** The stable form for machines; see docs/json.md. */
    Map<String, Object> toJson() {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("tokens_before", before);
        json.put("tokens_after", after);
        json.put("tokens_required", required);
        json.put("max_abs_diff", maxAbsDiff.isPresent() ? maxAbsDiff.getAsDouble() : null);
        json.put("held_out", text.map(VocabularyReport::toJson).orElse(null));
        return json;
    }

    private static Map<String, Object> toJson(HeldOut found) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("tokens_before", found.tokensBefore());
        json.put("tokens_after", found.tokensAfter());
        json.put("growth", found.growth());
        json.put("perplexity_per_byte_before", found.perplexityBefore());
        json.put("perplexity_per_byte_after", found.perplexityAfter());
        return json;
    }
}
