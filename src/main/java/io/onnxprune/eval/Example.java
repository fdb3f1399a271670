// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

/**
 * A row of tokens, all or the last of which are to be predicted.
 *
 * @param tokens ids, two or more
 * @param first the first token whose prediction counts: 1, or where an answer begins behind its prompt
 */
@SuppressWarnings("ArrayRecordComponent") // token ids are arrays everywhere; nothing compares them
public record Example(long[] tokens, int first) {
    /** Checks that something is left to predict. */
    public Example {
        if (first < 1 || first >= tokens.length) {
            throw new IllegalArgumentException(
                    "nothing to predict from token " + first + " of " + tokens.length + " on");
        }
    }

    /** A row of which every token but the first is to be predicted. */
    public static Example whole(long[] tokens) {
        return new Example(tokens, 1);
    }

    /** How many predictions count. */
    public int predictions() {
        return tokens.length - first;
    }
}
