// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.Base64;
import java.util.HexFormat;
import java.util.function.IntFunction;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/**
 * Contents of tensors in the text form of a model. A small tensor has its values, and each reads back to the same bits (a NaN
 * to some NaN). A type without numbers in Java has its bytes instead. A large tensor has none.
 */
final class TensorText {
    /** Stands for contents that are left out. */
    static final String LEFT_OUT = "...";

    static final String HEX = "hex";
    static final String CARRIED = "carried";

    /** The most elements that are written. */
    private static final int SMALL = 16;

    private TensorText() {}

    /** {@code float[2,3]}. */
    static String type(Tensor tensor) {
        return GraphPrinter.name(tensor.dtype())
                + Arrays.stream(tensor.shape()).mapToObj(Long::toString).collect(Collectors.joining(",", "[", "]"));
    }

    /** {@code [1, 2]}, {@code hex "0102"}, {@code carried "CgE="} or {@code ...}. */
    static String contents(Tensor tensor) {
        if (tensor.opaque() != null) {
            return carried(tensor.opaque());
        }
        if (tensor.elements() > SMALL) {
            return LEFT_OUT;
        }
        if (!hasNumbers(tensor.dtype())) {
            return HEX + " \"" + HexFormat.of().formatHex(tensor.bytes().toArray()) + '"';
        }
        return IntStream.range(0, (int) tensor.elements())
                .mapToObj(numbers(tensor))
                .collect(Collectors.joining(", ", "[", "]"));
    }

    /** Serialized fields that the tool does not interpret. */
    static String carried(byte[] serialized) {
        return CARRIED + " \"" + Base64.getEncoder().encodeToString(serialized) + '"';
    }

    /** Whether elements of this type are written as numbers. */
    static boolean hasNumbers(DType dtype) {
        return dtype.isFloat() || isInteger(dtype);
    }

    private static boolean isInteger(DType dtype) {
        return switch (dtype) {
            case BOOL, INT8, UINT8, INT16, UINT16, INT32, UINT32, INT64, UINT64 -> true;
            default -> false;
        };
    }

    private static IntFunction<String> numbers(Tensor tensor) {
        if (tensor.dtype() == DType.DOUBLE) {
            ByteBuffer buffer = ByteBuffer.wrap(tensor.bytes().toArray()).order(ByteOrder.LITTLE_ENDIAN);
            return i -> Double.toString(buffer.getDouble(i * Double.BYTES));
        }
        if (tensor.dtype().isFloat()) {
            float[] values = tensor.toFloats();
            return i -> Float.toString(values[i]);
        }
        long[] values = tensor.toLongs();
        boolean unsigned = tensor.dtype() == DType.UINT64;
        return i -> unsigned ? Long.toUnsignedString(values[i]) : Long.toString(values[i]);
    }

    /**
     * Appends one element.
     *
     * @throws NumberFormatException if {@code word} is no number of this type
     */
    static void put(DType dtype, String word, ByteBuffer target) {
        switch (dtype) {
            case DOUBLE -> target.putDouble(Double.parseDouble(word));
            case FLOAT, FLOAT16, BFLOAT16 -> Floats.encode(dtype, new float[] {Float.parseFloat(word)}, 1, target);
            case UINT64 -> target.putLong(Long.parseUnsignedLong(word));
            case INT64 -> target.putLong(Long.parseLong(word));
            case INT32, UINT32 -> target.putInt((int) integer(dtype, word));
            case INT16, UINT16 -> target.putShort((short) integer(dtype, word));
            default -> target.put((byte) integer(dtype, word));
        }
    }

    private static long integer(DType dtype, String word) {
        long value = Long.parseLong(word);
        boolean signed = dtype == DType.INT8 || dtype == DType.INT16 || dtype == DType.INT32;
        long lowest = signed ? -1L << (dtype.bits() - 1) : 0;
        if (value < lowest || value >= lowest + (1L << dtype.bits())) {
            throw new NumberFormatException(word + " is out of the range of " + dtype);
        }
        return value;
    }
}
