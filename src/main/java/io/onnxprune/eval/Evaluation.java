// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import java.util.OptionalDouble;

/**
 * The result of an evaluation.
 *
 * @param perplexity exp of {@code nll}
 * @param nll mean negative log-likelihood of the next token, in nats
 * @param tokens number of predicted tokens
 * @param rows number of rows of data
 * @param vocabulary size of the vocabulary
 * @param prefillTokensPerSecond prompt tokens processed in each second; empty when it was not measured
 * @param decodeTokensPerSecond tokens decoded in each second; empty when it was not measured or the model has no cache
 * @param seconds duration of the perplexity measurement
 */
public record Evaluation(
        double perplexity,
        double nll,
        long tokens,
        long rows,
        long vocabulary,
        OptionalDouble prefillTokensPerSecond,
        OptionalDouble decodeTokensPerSecond,
        double seconds) {}
