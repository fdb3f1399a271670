// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

/** An ONNX tensor element type, with its code in {@code TensorProto.DataType} and its width in bits. */
public enum DType {
    UNDEFINED(0, 0),
    FLOAT(1, 32),
    UINT8(2, 8),
    INT8(3, 8),
    UINT16(4, 16),
    INT16(5, 16),
    INT32(6, 32),
    INT64(7, 64),
    STRING(8, 0),
    BOOL(9, 8),
    FLOAT16(10, 16),
    DOUBLE(11, 64),
    UINT32(12, 32),
    UINT64(13, 64),
    COMPLEX64(14, 64),
    COMPLEX128(15, 128),
    BFLOAT16(16, 16),
    FLOAT8E4M3FN(17, 8),
    FLOAT8E4M3FNUZ(18, 8),
    FLOAT8E5M2(19, 8),
    FLOAT8E5M2FNUZ(20, 8),
    UINT4(21, 4),
    INT4(22, 4),
    FLOAT4E2M1(23, 4),
    FLOAT8E8M0(24, 8),
    UINT2(25, 2),
    INT2(26, 2);

    private final int code;
    private final int bits;

    DType(int code, int bits) {
        this.code = code;
        this.bits = bits;
    }

    /** The code of this type in {@code TensorProto.DataType}. */
    public int code() {
        return code;
    }

    /** Bits of one element; 0 for types without a fixed width (strings). */
    public int bits() {
        return bits;
    }

    /** Size in bytes of {@code elements} densely packed elements, rounded up to a full byte. */
    public long bytes(long elements) {
        return (elements * bits + 7) / 8;
    }

    /** Whether weights of this type can be pruned: float32, float16, bfloat16 and float64. */
    public boolean isFloat() {
        return this == FLOAT || this == FLOAT16 || this == BFLOAT16 || this == DOUBLE;
    }

    /** Whether this is a floating-point type of 8 bits or fewer. Weights of these types stand for themselves or are scaled. */
    public boolean isSmallFloat() {
        return SmallFloats.has(this);
    }

    /** Whether this is int32 or int64, the types of sizes and indices. */
    public boolean isIndex() {
        return this == INT32 || this == INT64;
    }

    /**
     * The type with this {@code TensorProto.DataType} code; {@link #UNDEFINED} for an unknown code of a newer ONNX
     * version.
     */
    public static DType of(int code) {
        for (DType type : values()) {
            if (type.code == code) {
                return type;
            }
        }
        return UNDEFINED;
    }
}
