// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import ai.onnxruntime.platform.Fp16Conversions;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Floats;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.util.Arrays;
import java.util.Objects;

/**
 * A dense tensor in this process's memory, row-major and little-endian.
 *
 * <p>The bytes are shared, not copied. ONNX Runtime uses a direct buffer, such as a memory-mapped file, without a
 * copy. A heap buffer is copied when it is fed.
 *
 * @param dtype element type, of fixed width and at least 8 bits
 * @param shape extent of each axis, outermost first; empty for a scalar
 * @param bytes the elements, from the buffer's position to its limit
 */
@SuppressWarnings("ArrayRecordComponent") // Shapes are arrays everywhere in this package; nothing compares tensors.
public record HostTensor(DType dtype, long[] shape, ByteBuffer bytes) implements RuntimeTensor {
    /**
     * Checks that the number of bytes matches the shape.
     *
     * @throws IllegalArgumentException when it does not, or when an element is smaller than a byte
     */
    public HostTensor {
        Objects.requireNonNull(dtype, "dtype");
        shape = shape.clone();
        bytes = bytes.slice().order(ByteOrder.LITTLE_ENDIAN);
        if (dtype.bits() < 8) {
            throw new IllegalArgumentException("a host tensor cannot hold " + dtype);
        }
        long expected = dtype.bytes(elements(shape));
        if (bytes.remaining() != expected) {
            throw new IllegalArgumentException("%s%s takes %d bytes, found %d"
                    .formatted(dtype, Arrays.toString(shape), expected, bytes.remaining()));
        }
    }

    /** An int64 tensor with the given values in row-major order. */
    public static HostTensor ofInt64(long[] shape, long... values) {
        HostTensor tensor = zeros(DType.INT64, shape);
        tensor.bytes.duplicate().order(ByteOrder.LITTLE_ENDIAN).asLongBuffer().put(values);
        return tensor;
    }

    /** A float32 tensor with the given values in row-major order. */
    public static HostTensor ofFloat32(long[] shape, float... values) {
        HostTensor tensor = zeros(DType.FLOAT, shape);
        tensor.bytes.duplicate().order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().put(values);
        return tensor;
    }

    /** A tensor of a floating-point type with the given values in row-major order, rounded to this type. */
    public static HostTensor ofFloats(DType dtype, long[] shape, float... values) {
        HostTensor tensor = zeros(dtype, shape);
        Floats.encode(dtype, values, values.length, tensor.bytes.duplicate().order(ByteOrder.LITTLE_ENDIAN));
        return tensor;
    }

    /** This tensor of floating-point numbers in another floating-point type. */
    HostTensor inFloatsOf(DType other) {
        return dtype == other ? this : ofFloats(other, shape, toFloats());
    }

    /** A bool tensor with the given values in row-major order. */
    public static HostTensor ofBool(long[] shape, boolean... values) {
        HostTensor tensor = zeros(DType.BOOL, shape);
        for (int i = 0; i < values.length; i++) {
            tensor.bytes.put(i, (byte) (values[i] ? 1 : 0));
        }
        return tensor;
    }

    /**
     * A tensor of INT64, INT32 or BOOL with the given integers in row-major order, for graph inputs of either width.
     *
     * @throws IllegalArgumentException when {@code dtype} is another type
     * @throws ArithmeticException when a value does not fit into int32
     */
    public static HostTensor ofIntegers(DType dtype, long[] shape, long... values) {
        HostTensor tensor = zeros(dtype, shape);
        ByteBuffer bytes = tensor.bytes;
        for (int i = 0; i < values.length; i++) {
            switch (dtype) {
                case INT64 -> bytes.putLong(8 * i, values[i]);
                case INT32 -> bytes.putInt(4 * i, Math.toIntExact(values[i]));
                case BOOL -> bytes.put(i, (byte) (values[i] != 0 ? 1 : 0));
                default -> throw new IllegalArgumentException("not an integer input type: " + dtype);
            }
        }
        return tensor;
    }

    /**
     * A tensor of zeros in a direct buffer.
     *
     * @throws IllegalArgumentException when it would take 2 GiB or more
     */
    public static HostTensor zeros(DType dtype, long[] shape) {
        long size = dtype.bytes(elements(shape));
        if (size > Integer.MAX_VALUE - 64) {
            throw new IllegalArgumentException(
                    "%s%s does not fit one buffer of 2 GiB".formatted(dtype, Arrays.toString(shape)));
        }
        return new HostTensor(dtype, shape, ByteBuffer.allocateDirect((int) size));
    }

    @Override
    public long[] shape() {
        return shape.clone();
    }

    /** A little-endian view of the bytes with its own position and limit. */
    @Override
    public ByteBuffer bytes() {
        return bytes.duplicate().order(ByteOrder.LITTLE_ENDIAN);
    }

    @Override
    public long byteSize() {
        return bytes.remaining();
    }

    @Override
    public HostTensor toHost() {
        return this;
    }

    @Override
    public void clear() {
        ByteBuffer all = bytes.duplicate();
        byte[] zeros = new byte[(int) Math.min(1 << 16, byteSize())];
        while (all.hasRemaining()) {
            all.put(zeros, 0, Math.min(zeros.length, all.remaining()));
        }
    }

    @Override
    public void release() {
        // The garbage collector frees the buffer.
    }

    /** This tensor in a direct buffer, which the runtime uses without a copy; itself when its buffer is direct. */
    public HostTensor direct() {
        if (bytes.isDirect()) {
            return this;
        }
        HostTensor copy = zeros(dtype, shape);
        copy.bytes.duplicate().put(bytes());
        return copy;
    }

    /** Number of elements; 1 for a scalar. */
    public long elements() {
        return elements(shape);
    }

    /** Number of elements of a tensor of this shape. */
    static long elements(long[] shape) {
        long product = 1;
        for (long extent : shape) {
            product = Math.multiplyExact(product, extent);
        }
        return product;
    }

    /**
     * A copy of the elements of an integer or bool tensor. Unsigned types are zero-extended.
     *
     * @throws IllegalArgumentException when the elements are not integers
     */
    public long[] toLongs() {
        long[] values = new long[(int) elements()];
        for (int i = 0; i < values.length; i++) {
            values[i] = switch (dtype) {
                case INT64, UINT64 -> bytes.getLong(8 * i);
                case INT32 -> bytes.getInt(4 * i);
                case UINT32 -> Integer.toUnsignedLong(bytes.getInt(4 * i));
                case INT16 -> bytes.getShort(2 * i);
                case UINT16 -> Short.toUnsignedLong(bytes.getShort(2 * i));
                case INT8 -> bytes.get(i);
                case UINT8, BOOL -> Byte.toUnsignedLong(bytes.get(i));
                default -> throw new IllegalArgumentException("not an integer tensor: " + dtype);
            };
        }
        return values;
    }

    /**
     * A copy of the elements of a floating-point tensor as float32. Float16 and bfloat16 are widened exactly, float64
     * is rounded.
     *
     * @throws IllegalArgumentException when the elements are not floating-point numbers
     */
    public float[] toFloats() {
        float[] values = new float[(int) elements()];
        if (dtype == DType.FLOAT) {
            bytes().asFloatBuffer().get(values);
            return values;
        }
        for (int i = 0; i < values.length; i++) {
            values[i] = switch (dtype) {
                case FLOAT16 -> Fp16Conversions.fp16ToFloat(bytes.getShort(2 * i));
                case BFLOAT16 -> Fp16Conversions.bf16ToFloat(bytes.getShort(2 * i));
                case DOUBLE -> (float) bytes.getDouble(8 * i);
                default -> throw new IllegalArgumentException("not a floating-point tensor: " + dtype);
            };
        }
        return values;
    }

    /**
     * The elements of a floating-point tensor as float32, with the values of {@link #toFloats} but without a copy when
     * they are float32 already.
     *
     * @throws IllegalArgumentException when the elements are not floating-point numbers
     */
    public FloatBuffer asFloats() {
        return dtype == DType.FLOAT ? bytes().asFloatBuffer() : FloatBuffer.wrap(toFloats());
    }

    @Override
    public String toString() {
        return dtype + Arrays.toString(shape);
    }
}
