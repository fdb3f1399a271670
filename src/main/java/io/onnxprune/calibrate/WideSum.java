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
 * A sum in float32 that many runs add to, taken over into float64 now and then: added up in float32 alone, the error
 * grows with their number.
 */
final class WideSum {
    /** Runs after which the error of a float32 sum is still that of its last digit (measured: 1e-7 of its length). */
    static final int RUNS = 64;

    private static final int CHUNK = 1 << 26;

    private final FloatBuffer narrow;
    private final List<DoubleBuffer> chunks = new ArrayList<>();

    /** @param sum float32; what it holds goes into the wide sum when it is next taken over */
    WideSum(HostTensor sum) {
        this.narrow = sum.bytes().asFloatBuffer();
        for (int start = 0; start < narrow.capacity(); start += CHUNK) {
            int size = Math.min(CHUNK, narrow.capacity() - start);
            chunks.add(ByteBuffer.allocateDirect(size * Double.BYTES)
                    .order(ByteOrder.nativeOrder())
                    .asDoubleBuffer());
        }
    }

    /** Adds the float32 sum to the wide one and sets it to zero. */
    void takeOver() {
        int start = 0;
        for (DoubleBuffer chunk : chunks) {
            for (int i = 0; i < chunk.capacity(); i++) {
                chunk.put(i, chunk.get(i) + narrow.get(start + i));
                narrow.put(start + i, 0);
            }
            start += chunk.capacity();
        }
    }

    /** Writes the whole sum, rounded, to where the float32 sum was. */
    void giveBack() {
        int start = 0;
        for (DoubleBuffer chunk : chunks) {
            for (int i = 0; i < chunk.capacity(); i++) {
                narrow.put(start + i, (float) (chunk.get(i) + narrow.get(start + i)));
            }
            start += chunk.capacity();
        }
    }
}
