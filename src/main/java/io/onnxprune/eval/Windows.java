// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import io.onnxprune.diag.UsageException;
import java.util.Arrays;
import java.util.List;
import java.util.OptionalInt;

/**
 * How rows are cut for perplexity. Windows of {@code length} tokens begin every {@code stride} tokens. A window repeats
 * tokens of the one before as context, so only the tokens count that are in no window before. Perplexity on WikiText-2
 * is usually reported so (Transformers documentation, "Perplexity of fixed-length models").
 *
 * @param length tokens of a window; by default rows of ids are whole and text is cut to {@link TokenData#TEXT_WINDOW}
 * @param stride tokens from the beginning of one window to that of the next; by default {@code length}
 */
public record Windows(OptionalInt length, OptionalInt stride) {
    /** Rows as they are. */
    public static final Windows WHOLE = new Windows(OptionalInt.empty(), OptionalInt.empty());

    /**
     * Checks that every token is in a window.
     *
     * @throws UsageException if one is not, or a window is too short for a prediction
     */
    public Windows {
        if (length.isPresent() && length.getAsInt() < 2) {
            throw new UsageException(
                    "--seq-len takes 2 or more, since a prediction takes two tokens, not " + length.getAsInt());
        }
        if (stride.isPresent() && length.isEmpty()) {
            throw new UsageException("--stride is for windows of --seq-len N, which was not given");
        }
        if (stride.isPresent() && (stride.getAsInt() < 1 || stride.getAsInt() > length.getAsInt())) {
            throw new UsageException("--stride takes 1 to %d, the tokens of a window, not %d"
                    .formatted(length.getAsInt(), stride.getAsInt()));
        }
    }

    /** Windows that do not overlap. */
    static Windows of(OptionalInt length) {
        return new Windows(length, OptionalInt.empty());
    }

    /**
     * Cuts a row. One that is no longer than a window is whole; tokens after the last complete window are dropped.
     *
     * @param usual tokens of a window where none were set
     * @param into gets the windows that have a token to predict
     */
    void cut(long[] row, int usual, List<Example> into) {
        int size = length.orElse(usual);
        if (row.length <= size) {
            if (row.length >= 2) {
                into.add(Example.whole(row));
            }
            return;
        }
        int step = stride.orElse(size);
        for (int start = 0; start + size <= row.length; start += step) {
            int first = start == 0 ? 1 : Math.max(1, size - step);
            into.add(new Example(Arrays.copyOfRange(row, start, start + size), first));
        }
    }
}
