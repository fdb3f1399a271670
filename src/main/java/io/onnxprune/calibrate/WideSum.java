// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.runtime.HostTensor;
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

    private final FloatBuffer floatSum;
    private final List<DoubleBuffer> chunks = new ArrayList<>();

    /**
     * Creates a wide sum of zero.
     *
     * @param sum the float32 sum; {@link #absorb} moves its contents to the wide sum
     */
    WideSum(HostTensor sum) {
        this.floatSum = sum.bytes().asFloatBuffer();
        for (int start = 0; start < floatSum.capacity(); start += CHUNK) {
            int size = Math.min(CHUNK, floatSum.capacity() - start);
            chunks.add(ByteBuffer.allocateDirect(size * Double.BYTES)
                    .order(ByteOrder.nativeOrder())
                    .asDoubleBuffer());
        }
    }

    /** Adds the float32 sum to the wide one and sets it to zero. */
    void absorb() {
        int start = 0;
        for (DoubleBuffer chunk : chunks) {
            for (int i = 0; i < chunk.capacity(); i++) {
                chunk.put(i, chunk.get(i) + floatSum.get(start + i));
                floatSum.put(start + i, 0);
            }
            start += chunk.capacity();
        }
    }

    /** Writes the total, rounded to float32, to the float32 sum. */
    void writeBack() {
        int start = 0;
        for (DoubleBuffer chunk : chunks) {
            for (int i = 0; i < chunk.capacity(); i++) {
                floatSum.put(start + i, (float) (chunk.get(i) + floatSum.get(start + i)));
            }
            start += chunk.capacity();
        }
    }
}
