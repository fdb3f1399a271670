// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import io.onnxprune.ir.DType;
import io.onnxprune.runtime.Session.Io;
import java.util.Arrays;
import java.util.List;

/**
 * Masks for rows without padding. A mask of more positions than there are tokens is for caches of fixed length. Their
 * tokens begin at the first position of the mask, or, where the caches come before the tokens of the step, end at its
 * last one.
 */
final class Masks {
    /** What is added to a score so that nothing is attended to; within float16, and far from its end. */
    private static final float NEVER = -10_000;

    private final RowSize size;
    private final List<State> states;

    Masks(RowSize size, List<State> states) {
        this.size = size;
        this.states = states;
    }

    /** {@code [batch, positions]}: one for each position up to the last token. */
    HostTensor ofPositions(Io input) {
        int total = total(input);
        int first = first(total);
        float[] values = new float[size.batch() * total];
        for (int i = 0; i < values.length; i++) {
            int position = i % total - first;
            values[i] = position >= 0 && position < size.past() + size.length() ? 1 : 0;
        }
        return tensor(input.dtype(), new long[] {size.batch(), total}, values);
    }

    /** {@code [batch, 1, tokens, positions]}, or without one of the first axes: what each token attends to. */
    HostTensor ofPairs(Io input) {
        int rank = input.rank();
        int total = total(input);
        int first = first(total);
        long[] shape = input.shape().clone();
        shape[rank - 1] = total;
        shape[rank - 2] = shape[rank - 2] == 1 ? 1 : size.length();
        for (int axis = 0; axis < rank - 2; axis++) {
            shape[axis] = shape[axis] >= 0 ? shape[axis] : axis == 0 ? size.batch() : 1;
        }
        float allowed = input.dtype().isFloat() ? 0 : 1;
        float forbidden = input.dtype().isFloat() ? NEVER : 0;
        float[] values = new float[(int) Arrays.stream(shape).reduce(1, Math::multiplyExact)];
        for (int i = 0; i < values.length; i++) {
            int token = (int) (i / total % shape[rank - 2]);
            int last = size.past() + (shape[rank - 2] == 1 ? size.length() - 1 : token);
            int position = i % total - first;
            values[i] = position >= 0 && position <= last ? allowed : forbidden;
        }
        return tensor(input.dtype(), shape, values);
    }

    /** A mask that hides nothing of another input. */
    HostTensor ofContext(Io input) {
        long[] shape = input.shape().clone();
        for (int axis = 0; axis < shape.length; axis++) {
            if (shape[axis] < 0) {
                shape[axis] = axis == 0
                        ? size.batch()
                        : axis == shape.length - 1 ? size.context() : axis == shape.length - 2 ? size.length() : 1;
            }
        }
        float[] values = new float[(int) Arrays.stream(shape).reduce(1, Math::multiplyExact)];
        Arrays.fill(values, input.dtype().isFloat() && shape.length > 2 ? 0 : 1);
        return tensor(input.dtype(), shape, values);
    }

    private int total(Io input) {
        long declared = input.shape()[input.rank() - 1];
        return declared >= 0 ? (int) declared : size.past() + size.length();
    }

    /** The first position of the rows in a mask. */
    private int first(int total) {
        boolean after = states.stream()
                .filter(state -> state.pastAxis() < 0 && state.input().rank() == 4)
                .anyMatch(state -> Arrays.stream(state.input().shape())
                        .anyMatch(extent -> extent > 1 && extent + size.length() == total));
        return after ? Math.max(0, total - size.past() - size.length()) : 0;
    }

    private static HostTensor tensor(DType dtype, long[] shape, float[] values) {
        if (dtype.isFloat()) {
            return HostTensor.ofFloats(dtype, shape, values);
        }
        long[] integers = new long[values.length];
        Arrays.setAll(integers, i -> (long) values[i]);
        return HostTensor.ofIntegers(dtype, shape, integers);
    }
}
