// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import io.onnxprune.diag.Sizes;
import io.onnxprune.runtime.Session.Io;

/**
 * What a model remembers from step to step: a graph input together with the output that updates it. It is a key or
 * value cache that grows, a cache of fixed length, the state of a convolution or of a recurrence, or what a decoder
 * keeps of an encoder.
 *
 * @param input the graph input
 * @param output name of the graph output to be fed as the next step's input
 * @param batchAxis axis of the batch; -1 when its extent is fixed
 * @param pastAxis axis that grows with every token; -1 for none
 * @param contextAxis axis as long as the context of an encoder; -1 for none
 */
public record State(Io input, String output, int batchAxis, int pastAxis, int contextAxis) {
    private static final long MAX_BYTES = Integer.MAX_VALUE - 64;

    /** Whether it has an axis of unknown extent that is neither batch, past nor context. */
    public boolean hasUnknownExtent() {
        for (int axis = 0; axis < input.rank(); axis++) {
            if (input.shape()[axis] < 0 && !isVariable(axis)) {
                return true;
            }
        }
        return false;
    }

    /** Whether an axis follows the rows of a run. */
    boolean isVariable(int axis) {
        return axis == batchAxis || axis == pastAxis || axis == contextAxis;
    }

    /** Bytes of one position of one row; 0 when it does not grow. */
    public long bytesPerToken(int unknown) {
        if (pastAxis < 0) {
            return 0;
        }
        long elements = 1;
        for (int axis = 0; axis < input.rank(); axis++) {
            if (!isVariable(axis)) {
                elements *= input.shape()[axis] > 0 ? input.shape()[axis] : Math.max(1, unknown);
            }
        }
        return input.dtype().bytes(elements);
    }

    /**
     * The state before the first token: zeros, or noise for what a decoder keeps of an encoder.
     *
     * @param unknown extent of axes that the graph leaves open, such as a symbolic head size
     */
    public HostTensor initial(RowSize size, int unknown) {
        long[] shape = input.shape().clone();
        for (int axis = 0; axis < shape.length; axis++) {
            if (axis == batchAxis) {
                shape[axis] = size.batch();
            } else if (axis == pastAxis) {
                shape[axis] = size.past();
            } else if (axis == contextAxis) {
                shape[axis] = size.context();
            } else if (shape[axis] < 0) {
                shape[axis] = unknown;
            }
        }
        Sizes sizes = new Sizes(
                "the cache input \"" + input.name() + '"', "export the model again with the extents of its caches");
        sizes.between("a size in bytes of", sizes.bytes(input.dtype().bits(), shape), 0, MAX_BYTES);
        return contextAxis >= 0 && input.dtype().isFloat()
                ? Noise.rows(input.name(), input.dtype(), shape)
                : HostTensor.zeros(input.dtype(), shape);
    }
}
