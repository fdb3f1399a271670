// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import java.util.OptionalDouble;

/**
 * What came out of an evaluation.
 *
 * @param perplexity exp of {@code nll}
 * @param nll mean negative log-likelihood of the next token, in nats
 * @param tokens how many tokens were predicted
 * @param rows how many rows they came from
 * @param vocabulary how many tokens the model knows
 * @param prefillTokensPerSecond tokens of a prompt taken in each second; empty where it was not measured
 * @param decodeTokensPerSecond tokens written each second; empty where it was not measured, or without a cache
 * @param seconds how long the perplexity took
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
