// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/**
 * Contents for a tensor whose own are not known: a function of the seed and the position, computed when they are read.
 * Floating-point numbers are uniform in [-0.5, 0.5). Integers of 16 bits and more are 0 or 1, as are booleans, so that
 * they can index most axes. All other types have random bytes.
 */
record StandIn(DType dtype, long elements, long seed) implements Bytes {
    private static final long STEP = 0x9e3779b97f4a7c15L;
    private static final int FRACTION_BITS = 24;

    /** Contents of a tensor of this name; different names have different contents. */
    static StandIn of(DType dtype, long elements, String name) {
        return new StandIn(dtype, elements, name.hashCode());
    }

    @Override
    public long size() {
        return dtype.bytes(elements);
    }

    @Override
    public void read(long offset, ByteBuffer target) {
        int width = width();
        for (long at = offset; target.hasRemaining(); at++) {
            long shift = at % width * 8;
            target.put((byte) (element(at / width) >>> shift));
        }
    }

    /** The bytes that one random number yields. */
    private int width() {
        return switch (dtype) {
            case FLOAT, DOUBLE, FLOAT16, BFLOAT16, INT16, UINT16, INT32, UINT32, INT64, UINT64 -> dtype.bits() / 8;
            default -> 1;
        };
    }

    private long element(long index) {
        long random = mix(mix(seed) + (index + 1) * STEP);
        return switch (dtype) {
            case FLOAT, DOUBLE, FLOAT16, BFLOAT16 -> encoded((random >>> (64 - FRACTION_BITS)) * 0x1p-24f - 0.5f);
            case BOOL, INT16, UINT16, INT32, UINT32, INT64, UINT64 -> random >>> 63;
            default -> random >>> 56;
        };
    }

    private long encoded(float value) {
        ByteBuffer buffer = ByteBuffer.allocate(Long.BYTES).order(ByteOrder.LITTLE_ENDIAN);
        Floats.encode(dtype, new float[] {value}, 1, buffer);
        return buffer.getLong(0);
    }

    /** The finaliser of SplitMix64 (Steele, Lea and Flood, 2014). */
    private static long mix(long value) {
        long mixed = (value ^ (value >>> 30)) * 0xbf58476d1ce4e5b9L;
        mixed = (mixed ^ (mixed >>> 27)) * 0x94d049bb133111ebL;
        return mixed ^ (mixed >>> 31);
    }
}
