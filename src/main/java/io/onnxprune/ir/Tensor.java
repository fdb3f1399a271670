// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;

/**
 * A constant tensor: element type, shape and lazily read bytes. A tensor that is not interpreted, such as one of
 * strings, has no bytes but its serialized form in {@code opaque}.
 */
public final class Tensor {
    private final DType dtype;
    private final long[] shape;
    private final Bytes bytes;
    private final byte[] opaque;
    private final byte[] rest;

    private Tensor(DType dtype, long[] shape, Bytes bytes, byte[] opaque, byte[] rest) {
        this.dtype = dtype;
        this.shape = shape.clone();
        this.bytes = bytes;
        this.opaque = opaque;
        this.rest = rest;
    }

    /**
     * A tensor over the given bytes.
     *
     * @throws IllegalArgumentException when the number of bytes does not match the shape
     */
    public static Tensor of(DType dtype, long[] shape, Bytes bytes) {
        return of(dtype, shape, bytes, new byte[0]);
    }

    /**
     * A tensor over the given bytes, with further TensorProto fields.
     *
     * @param rest other TensorProto fields (documentation, metadata), serialized; they are kept without being
     *     interpreted
     * @throws IllegalArgumentException when the number of bytes does not match the shape
     */
    public static Tensor of(DType dtype, long[] shape, Bytes bytes, byte[] rest) {
        Tensor tensor = new Tensor(dtype, shape, bytes, null, rest);
        if (bytes.size() != dtype.bytes(tensor.elements())) {
            throw new IllegalArgumentException("expected " + dtype.bytes(tensor.elements()) + " bytes for " + dtype
                    + Arrays.toString(shape) + ", found " + bytes.size());
        }
        return tensor;
    }

    /**
     * A tensor that is kept without being interpreted.
     *
     * @param serialized the TensorProto
     */
    public static Tensor opaque(DType dtype, long[] shape, byte[] serialized) {
        return new Tensor(dtype, shape, null, serialized, new byte[0]);
    }

    /**
     * An int64 or int32 tensor with the given values.
     *
     * @throws ArithmeticException when a value does not fit into int32
     */
    public static Tensor ofIndices(DType dtype, long[] shape, long... values) {
        ByteBuffer buffer =
                ByteBuffer.allocate(Math.toIntExact(dtype.bytes(values.length))).order(ByteOrder.LITTLE_ENDIAN);
        for (long value : values) {
            if (dtype == DType.INT32) {
                buffer.putInt(Math.toIntExact(value));
            } else {
                buffer.putLong(value);
            }
        }
        return of(dtype, shape, Bytes.of(buffer.flip()));
    }

    /** A boolean tensor that is true where a value is not 0. */
    public static Tensor ofBooleans(long[] shape, long... values) {
        ByteBuffer buffer = ByteBuffer.allocate(values.length);
        for (long value : values) {
            buffer.put((byte) (value == 0 ? 0 : 1));
        }
        return of(DType.BOOL, shape, Bytes.of(buffer.flip()));
    }

    /** A floating-point tensor with the given values, rounded to {@code dtype}. */
    public static Tensor ofFloats(DType dtype, long[] shape, float... values) {
        ByteBuffer buffer =
                ByteBuffer.allocate(Math.toIntExact(dtype.bytes(values.length))).order(ByteOrder.LITTLE_ENDIAN);
        Floats.encode(dtype, values, values.length, buffer);
        return of(dtype, shape, Bytes.of(buffer.flip()));
    }

    public DType dtype() {
        return dtype;
    }

    public long[] shape() {
        return shape.clone();
    }

    public int rank() {
        return shape.length;
    }

    public long dim(int axis) {
        return shape[axis];
    }

    /** The bytes of the elements; null for an opaque tensor. */
    public Bytes bytes() {
        return bytes;
    }

    /** Other TensorProto fields, serialized; they are kept without being interpreted. */
    public byte[] rest() {
        return rest;
    }

    /** The serialized TensorProto of an opaque tensor; null for any other tensor. */
    public byte[] opaque() {
        return opaque;
    }

    public long elements() {
        return elements(shape);
    }

    /**
     * The number of elements of a shape: the product of its extents.
     *
     * @throws ArithmeticException when it overflows
     */
    public static long elements(long[] shape) {
        long count = 1;
        for (long extent : shape) {
            count = Math.multiplyExact(count, extent);
        }
        return count;
    }

    /**
     * The values of an integer or boolean tensor as longs, for small tensors.
     *
     * @throws IllegalStateException for any other element type
     */
    public long[] toLongs() {
        Bytes whole = dtype.bits() < 8 ? PackedBytes.unpacked(bytes, dtype.bits(), elements()) : bytes;
        ByteBuffer buffer = ByteBuffer.wrap(whole.toArray()).order(ByteOrder.LITTLE_ENDIAN);
        long[] values = new long[Math.toIntExact(elements())];
        for (int i = 0; i < values.length; i++) {
            values[i] = switch (dtype) {
                case INT64, UINT64 -> buffer.getLong();
                case INT32 -> buffer.getInt();
                case UINT32 -> Integer.toUnsignedLong(buffer.getInt());
                case INT16 -> buffer.getShort();
                case UINT16 -> Short.toUnsignedLong(buffer.getShort());
                case INT8 -> buffer.get();
                case INT4 -> buffer.get() << 28 >> 28;
                case INT2 -> buffer.get() << 30 >> 30;
                case UINT8, BOOL, UINT4, UINT2 -> Byte.toUnsignedLong(buffer.get());
                default -> throw new IllegalStateException("not an integer tensor: " + dtype);
            };
        }
        return values;
    }

    /** The values of a tensor of floating-point numbers, or integers of up to 8 bits, as float32, for small tensors. */
    public float[] toFloats() {
        float[] values = new float[Math.toIntExact(elements())];
        Bytes whole = dtype.bits() < 8 ? PackedBytes.unpacked(bytes, dtype.bits(), elements()) : bytes;
        Floats.decode(dtype, ByteBuffer.wrap(whole.toArray()).order(ByteOrder.LITTLE_ENDIAN), values, values.length);
        return values;
    }

    @Override
    public String toString() {
        return dtype.name().toLowerCase(java.util.Locale.ROOT) + Arrays.toString(shape);
    }
}
