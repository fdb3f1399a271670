// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/** Conversion between the element types of ONNX weights and Java floats, in bulk and by blocks. */
public final class Floats {
    private static final int BLOCK_BYTES = 1 << 20;
    private static final float[] HALF = new float[1 << 16];

    static {
        for (int bits = 0; bits < HALF.length; bits++) {
            HALF[bits] = decodeHalf(bits);
        }
    }

    private Floats() {}

    /**
     * Receives consecutive blocks of a tensor's values. {@code values[0..count)} are the elements from {@code first}
     * on.
     */
    public interface BlockReader {
        void read(long first, float[] values, int count);
    }

    /**
     * Reads the elements of {@code tensor} in order and passes them on in blocks. A block holds complete rows (of the
     * last axis) if a row fits.
     */
    public static void forEachBlock(Tensor tensor, BlockReader reader) {
        long total = tensor.elements();
        int bits = tensor.dtype().bits();
        int width = Math.max(1, bits / 8);
        Bytes bytes = bits < 8 ? PackedBytes.unpacked(tensor.bytes(), bits, total) : tensor.bytes();
        long row = tensor.rank() == 0 ? 1 : Math.max(1, tensor.dim(tensor.rank() - 1));
        long blockElements = BLOCK_BYTES / width;
        if (row <= blockElements) {
            blockElements -= blockElements % row;
        }
        int capacity = (int) Math.min(total, blockElements);
        ByteBuffer buffer = ByteBuffer.allocate(capacity * width).order(ByteOrder.LITTLE_ENDIAN);
        float[] values = new float[capacity];
        for (long first = 0; first < total; first += capacity) {
            int count = (int) Math.min(capacity, total - first);
            bytes.read(first * width, buffer.clear().limit(count * width));
            decode(tensor.dtype(), buffer.flip(), values, count);
            reader.read(first, values, count);
        }
    }

    /**
     * Decodes {@code count} little-endian elements of {@code source}, floating-point or integers of up to 8 bits. Each
     * element of less than a byte has one of its own.
     *
     * @throws IllegalArgumentException for any other element type
     */
    public static void decode(DType dtype, ByteBuffer source, float[] target, int count) {
        switch (dtype) {
            case FLOAT -> source.asFloatBuffer().get(target, 0, count);
            case DOUBLE -> {
                for (int i = 0; i < count; i++) {
                    target[i] = (float) source.getDouble(source.position() + 8 * i);
                }
            }
            case FLOAT16 -> {
                for (int i = 0, p = source.position(); i < count; i++, p += 2) {
                    target[i] = HALF[source.getShort(p) & 0xffff];
                }
            }
            case BFLOAT16 -> {
                for (int i = 0, p = source.position(); i < count; i++, p += 2) {
                    target[i] = Float.intBitsToFloat(source.getShort(p) << 16);
                }
            }
            case INT8 -> {
                for (int i = 0; i < count; i++) {
                    target[i] = source.get(source.position() + i);
                }
            }
            case UINT8 -> {
                for (int i = 0; i < count; i++) {
                    target[i] = Byte.toUnsignedInt(source.get(source.position() + i));
                }
            }
            default -> {
                for (int i = 0; i < count; i++) {
                    target[i] = decode(dtype, Byte.toUnsignedInt(source.get(source.position() + i)));
                }
            }
        }
    }

    /**
     * Encodes {@code count} values into {@code target} and advances it. Half types round to nearest even.
     *
     * @throws IllegalArgumentException when {@code dtype} is not a floating-point type
     */
    public static void encode(DType dtype, float[] source, int count, ByteBuffer target) {
        for (int i = 0; i < count; i++) {
            switch (dtype) {
                case FLOAT -> target.putFloat(source[i]);
                case DOUBLE -> target.putDouble(source[i]);
                case FLOAT16 -> target.putShort(encodeHalf(source[i]));
                case BFLOAT16 -> target.putShort(encodeBfloat(source[i]));
                default -> throw new IllegalArgumentException("not a floating-point type: " + dtype);
            }
        }
    }

    private static float decode(DType dtype, int element) {
        return switch (dtype) {
            case UINT4, UINT2 -> element;
            case INT4 -> element << 28 >> 28;
            case INT2 -> element << 30 >> 30;
            default -> SmallFloats.decode(dtype, element);
        };
    }

    private static float decodeHalf(int bits) {
        int exponent = (bits >> 10) & 0x1f;
        int mantissa = bits & 0x3ff;
        float magnitude;
        if (exponent == 0x1f) {
            magnitude = mantissa == 0 ? Float.POSITIVE_INFINITY : Float.NaN;
        } else if (exponent == 0) {
            magnitude = mantissa * 0x1p-24f;
        } else {
            magnitude = Float.intBitsToFloat((exponent + 112) << 23 | mantissa << 13);
        }
        return (bits & 0x8000) != 0 ? -magnitude : magnitude;
    }

    private static short encodeHalf(float value) {
        int bits = Float.floatToRawIntBits(value);
        int sign = (bits >>> 16) & 0x8000;
        float magnitude = Math.abs(value);
        if (Float.isNaN(value)) {
            return (short) (sign | 0x7e00);
        }
        if (magnitude >= 65520f) {
            return (short) (sign | 0x7c00);
        }
        if (magnitude < 0x1p-14f) {
            return (short) (sign | (int) Math.rint(magnitude * 0x1p24));
        }
        int rounded = (bits & 0x7fffffff) + 0xfff + ((bits >>> 13) & 1);
        return (short) (sign | ((rounded >>> 13) - (112 << 10)));
    }

    private static short encodeBfloat(float value) {
        int bits = Float.floatToRawIntBits(value);
        if (Float.isNaN(value)) {
            return (short) ((bits >>> 16) | 0x40);
        }
        return (short) ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16);
    }
}
