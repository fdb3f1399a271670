// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import java.util.Arrays;

/** Combines the scores of one channel in all members of a coupled group. */
public enum Reduction {
    SUM,
    MEAN,
    MAX,
    /** The product. */
    PROD,
    /** The score of the first member in order of execution: the producer of the channel. */
    FIRST,
    /** The score of the last member in order of execution: the consumer of the channel. */
    LAST;

    /** Reduces {@code scores}, one for each member in order of execution; 0 for none. */
    double of(double[] scores) {
        if (scores.length == 0) {
            return 0;
        }
        return switch (this) {
            case SUM -> Arrays.stream(scores).sum();
            case MEAN -> Arrays.stream(scores).sum() / scores.length;
            case MAX -> Arrays.stream(scores).max().orElse(0);
            case PROD -> Arrays.stream(scores).reduce(1, (a, b) -> a * b);
            case FIRST -> scores[0];
            case LAST -> scores[scores.length - 1];
        };
    }
}
