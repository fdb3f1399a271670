// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

/**
 * The size of the rows of one run.
 *
 * @param batch number of rows
 * @param length number of tokens of each row
 * @param past number of earlier tokens of each row
 * @param context number of positions of other inputs, such as the states of an encoder
 */
public record RowSize(int batch, int length, int past, int context) {
    /** Positions of an input beside the rows when nothing else is known. */
    static final int USUAL_CONTEXT = 16;

    /** The same for a model without rows, such as one of sound, whose convolutions shorten what they get. */
    static final int LONG_CONTEXT = 3001;

    RowSize withContext(int positions) {
        return new RowSize(batch, length, past, positions);
    }
}
