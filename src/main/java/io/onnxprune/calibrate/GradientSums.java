// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import java.nio.FloatBuffer;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/**
 * The gradients of one initializer, summed over the rows of the calibration data. They stay where the runtime keeps
 * them until they are read.
 */
public interface GradientSums {
    /** Σ over rows of the gradient of the row's mean loss, in the order of the initializer's elements. */
    FloatBuffer sum();

    /** Σ over rows of the elementwise squares of that gradient; null unless requested. */
    @Nullable
    FloatBuffer squares();

    /**
     * Sums of a term that the runtime computes where the gradients are, so that only these sums are copied. Some are
     * not finite if a term is not finite.
     *
     * @return for each axis the sums over the slice at each index, or null if that axis is not wanted. Empty if the
     *     gradients are in this process's memory: then reading them copies nothing, and a loop over them is faster
     */
    Optional<double[][]> along(AxisReduction reduction);

    /** Sums in this process's memory; the squares are null unless they were requested. */
    static GradientSums of(FloatBuffer sum, @Nullable FloatBuffer squares) {
        return new InMemory(sum, squares);
    }

    /** Sums in this process's memory; see {@link #of}. */
    record InMemory(FloatBuffer sum, @Nullable FloatBuffer squares) implements GradientSums {
        @Override
        public FloatBuffer sum() {
            return sum.duplicate();
        }

        @Override
        public @Nullable FloatBuffer squares() {
            return squares == null ? null : squares.duplicate();
        }

        @Override
        public Optional<double[][]> along(AxisReduction reduction) {
            return Optional.empty();
        }
    }
}
