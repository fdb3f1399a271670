// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.RuntimeTensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.DoubleBuffer;
import java.nio.FloatBuffer;
import java.util.ArrayList;
import java.util.List;

/**
 * A float32 sum over many runs that is moved to float64 from time to time. In float32 only, the rounding error would
 * grow with the number of runs.
 */
final class WideSum {
    /**
     * The number of runs after which the rounding error of a float32 sum is still that of its last digit (measured:
     * 1e-7 of its norm).
     */
    static final int RUNS = 64;

    private static final int CHUNK = 1 << 26;

    private final RuntimeTensor sum;
    private final List<DoubleBuffer> chunks = new ArrayList<>();

    /**
     * Creates a wide sum of zero.
     *
     * @param sum the float32 sum; {@link #absorb} moves its contents to the wide sum
     */
    WideSum(RuntimeTensor sum) {
        this.sum = sum;
        int elements = Math.toIntExact(sum.byteSize() / Float.BYTES);
        for (int start = 0; start < elements; start += CHUNK) {
            int size = Math.min(CHUNK, elements - start);
            chunks.add(ByteBuffer.allocateDirect(size * Double.BYTES)
                    .order(ByteOrder.nativeOrder())
                    .asDoubleBuffer());
        }
    }

    /** Adds the float32 sum to the wide one and sets it to zero. */
    void absorb() {
        FloatBuffer added = sum.toHost().bytes().asFloatBuffer();
        int start = 0;
        for (DoubleBuffer chunk : chunks) {
            for (int i = 0; i < chunk.capacity(); i++) {
                chunk.put(i, chunk.get(i) + added.get(start + i));
            }
            start += chunk.capacity();
        }
        sum.clear();
    }

    /**
     * The total, rounded to float32, in this process's memory: the float32 sum itself if it is there. The other one is
     * released.
     */
    HostTensor total() {
        HostTensor total = sum.moveToHost();
        FloatBuffer values = total.bytes().asFloatBuffer();
        int start = 0;
        for (DoubleBuffer chunk : chunks) {
            for (int i = 0; i < chunk.capacity(); i++) {
                values.put(start + i, (float) (chunk.get(i) + values.get(start + i)));
            }
            start += chunk.capacity();
        }
        return total;
    }
}
