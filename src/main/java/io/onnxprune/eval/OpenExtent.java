// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import io.onnxprune.diag.UserException;
import io.onnxprune.runtime.Outputs;
import io.onnxprune.runtime.State;
import java.util.function.IntFunction;
import java.util.stream.IntStream;

/** Finds the head size of caches whose graph leaves it open. */
final class OpenExtent {
    /** Sizes to try first; all others up to the maximum follow. */
    private static final int[] USUAL = {64, 128, 96, 80, 256, 16, 32, 8, 48, 112, 160, 192, 576};

    private static final int MAX = 1024;

    private OpenExtent() {}

    /**
     * Tries one size after another. A wrong guess is cheap, because a kernel rejects an empty cache of the wrong extent
     * before it computes anything.
     *
     * @param open a state with an axis of unknown extent
     * @param run runs one token with a size
     * @throws UserException when the model runs with none
     */
    static int find(State open, IntFunction<Outputs> run) {
        UserException failure = null;
        int[] sizes = IntStream.concat(IntStream.of(USUAL), IntStream.rangeClosed(1, MAX))
                .distinct()
                .toArray();
        for (int size : sizes) {
            try (Outputs outputs = run.apply(size)) {
                long[] shape = outputs.shape(open.output());
                return (int) shape[shape.length - 1];
            } catch (UserException e) {
                failure = failure == null ? e : failure;
            }
        }
        throw new UserException(
                "the cache input %s leaves an extent open, and none up to %d runs; the first failure was: %s"
                        .formatted(open.input().name(), MAX, failure.getMessage()),
                failure);
    }
}
