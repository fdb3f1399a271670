// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.ir.GraphBuilder;
import io.onnxprune.ir.Slicing;
import io.onnxprune.ir.Tensor;
import java.util.BitSet;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;

/**
 * What is asked of the gradients of an initializer: the sums of a term for each element (w·g, |w·g|, ...) over the
 * slices along some axes.
 *
 * @param term the term
 * @param weights the weights at which the gradients were taken, in the shape of the initializer
 * @param zeros the numbers that are subtracted from the weights: one for all, or one for each index along {@code
 *     zeroAxis}
 * @param zeroAxis the axis along which the zeros lie
 * @param axes the axes along which sums are needed
 */
@SuppressWarnings("ArrayRecordComponent") // handed down, never compared
public record AxisReduction(Term term, Tensor weights, long[] zeros, int zeroAxis, BitSet axes) {
    /** A term for each element, as nodes of a graph. */
    public interface Term {
        /**
         * Appends the nodes that compute the term, and returns the name of its value. All values are float64 and have
         * the same shape.
         *
         * @param weights name of the weights
         * @param gradients name of the sums of gradients
         * @param squares name of the sums of squared gradients; null unless they were requested
         */
        String append(GraphBuilder builder, String weights, String gradients, @Nullable String squares);
    }

    /**
     * The same for a slice of the initializer.
     *
     * @param kept for each axis the kept indices, ascending, or null for all of them
     */
    public AxisReduction slice(int[][] kept) {
        int[] along = kept[zeroAxis];
        long[] keptZeros = along == null || zeros.length == 1
                ? zeros
                : IntStream.of(along).mapToLong(index -> zeros[index]).toArray();
        return new AxisReduction(term, Slicing.slice(weights, kept), keptZeros, zeroAxis, axes);
    }
}
