// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

/**
 * A row of tokens, of which all or the last ones are to be predicted.
 *
 * @param tokens ids, two or more
 * @param first index of the first token whose prediction counts: 1, or where an answer begins after its prompt
 */
@SuppressWarnings("ArrayRecordComponent") // token ids are arrays everywhere; nothing compares them
public record Example(long[] tokens, int first) {
    /**
     * Checks that at least one token is to be predicted.
     *
     * @throws IllegalArgumentException when there is none
     */
    public Example {
        if (first < 1 || first >= tokens.length) {
            throw new IllegalArgumentException(
                    "nothing to predict from token " + first + " of " + tokens.length + " on");
        }
    }

    /** A row of which every token except the first is to be predicted. */
    public static Example whole(long[] tokens) {
        return new Example(tokens, 1);
    }

    /** Number of predictions that count. */
    public int predictions() {
        return tokens.length - first;
    }
}
