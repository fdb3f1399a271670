// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

/** Values of floating-point types of 8 bits and fewer (section "Float stored in 8 bits" of the ONNX documentation). */
final class SmallFloats {
    private SmallFloats() {}

    /** Whether a type is one of these. */
    static boolean has(DType dtype) {
        return dtype.name().startsWith("FLOAT8") || dtype == DType.FLOAT4E2M1;
    }

    /** The value of an element. */
    static float decode(DType dtype, int bits) {
        return switch (dtype) {
            case FLOAT8E4M3FN -> (bits & 0x7f) == 0x7f ? Float.NaN : value(bits, 4, 3, 7);
            case FLOAT8E4M3FNUZ -> bits == 0x80 ? Float.NaN : value(bits, 4, 3, 8);
            case FLOAT8E5M2 -> special(bits);
            case FLOAT8E5M2FNUZ -> bits == 0x80 ? Float.NaN : value(bits, 5, 2, 16);
            case FLOAT8E8M0 -> bits == 0xff ? Float.NaN : Math.scalb(1f, bits - 127);
            case FLOAT4E2M1 -> value(bits, 2, 1, 1);
            default -> throw new IllegalArgumentException("not a floating-point type of 8 bits or fewer: " + dtype);
        };
    }

    /** As in IEEE 754, the largest exponent is that of infinity and of what is no number. */
    private static float special(int bits) {
        if ((bits & 0x7c) != 0x7c) {
            return value(bits, 5, 2, 15);
        }
        float infinity = (bits & 0x80) == 0 ? Float.POSITIVE_INFINITY : Float.NEGATIVE_INFINITY;
        return (bits & 3) == 0 ? infinity : Float.NaN;
    }

    private static float value(int bits, int exponentBits, int mantissaBits, int bias) {
        int mantissa = bits & (1 << mantissaBits) - 1;
        int exponent = bits >> mantissaBits & (1 << exponentBits) - 1;
        int whole = exponent == 0 ? mantissa : mantissa + (1 << mantissaBits);
        float magnitude = Math.scalb((float) whole, Math.max(1, exponent) - bias - mantissaBits);
        return (bits >> mantissaBits + exponentBits & 1) == 0 ? magnitude : -magnitude;
    }
}
