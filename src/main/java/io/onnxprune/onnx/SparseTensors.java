// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.onnx;

import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Bytes;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Tensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;

/**
 * Sparse tensors as dense ones (SparseTensorProto in the ONNX specification). Zeros are made when they are read, so no
 * dense copy is held.
 */
final class SparseTensors {
    private SparseTensors() {}

    /**
     * The dense form of a sparse tensor.
     *
     * @param values the elements that are stored, {@code [n]}
     * @param indices their places in ascending order: {@code [n]} in the flattened tensor, or {@code [n, rank]}
     * @param shape the shape of the dense tensor
     * @param where what messages call it
     * @throws UserException when the indices do not fit the values and the shape, or the elements have less than a byte
     */
    static Tensor dense(Tensor values, Tensor indices, long[] shape, String where) {
        if (values.bytes() == null || values.dtype().bits() % 8 != 0) {
            throw new UserException(where + " is sparse with elements of "
                    + values.dtype().name().toLowerCase(java.util.Locale.ROOT)
                    + ", which this version does not read; store it as a dense tensor");
        }
        boolean flat = indices.rank() == 1;
        boolean fits = indices.dtype() == DType.INT64
                && values.rank() == 1
                && (flat || indices.rank() == 2 && indices.dim(1) == shape.length)
                && indices.dim(0) == values.dim(0);
        if (!fits) {
            throw new UserException(where + " is sparse with values " + values + " at indices " + indices
                    + ", which do not belong together; export it again");
        }
        long[] places = flat ? indices.toLongs() : flattened(indices.toLongs(), shape);
        long elements = Tensor.elements(shape);
        for (int i = 0; i < places.length; i++) {
            if (places[i] < 0 || places[i] >= elements || i > 0 && places[i] <= places[i - 1]) {
                throw new UserException(where + " is sparse with the index " + places[i] + " at position " + i
                        + ", which is outside its shape or not in ascending order; export it again");
            }
        }
        int width = values.dtype().bits() / 8;
        return Tensor.of(values.dtype(), shape, new Scattered(places, values.bytes(), width, elements * width));
    }

    private static long[] flattened(long[] indices, long[] shape) {
        long[] places = new long[shape.length == 0 ? 0 : indices.length / shape.length];
        for (int i = 0; i < places.length; i++) {
            for (int axis = 0; axis < shape.length; axis++) {
                long index = indices[i * shape.length + axis];
                // An index beyond its axis must not become a valid one of the next row.
                places[i] = index < 0 || index >= shape[axis] || places[i] < 0 ? -1 : places[i] * shape[axis] + index;
            }
        }
        return places;
    }

    /**
     * Values at some places, and zeros elsewhere.
     *
     * @param places of the values, ascending
     * @param width bytes of one element
     */
    @SuppressWarnings("ArrayRecordComponent") // never compared
    private record Scattered(long[] places, Bytes values, int width, long size) implements Bytes {
        @Override
        public void read(long offset, ByteBuffer target) {
            byte[] bytes = new byte[target.remaining()];
            long end = offset + bytes.length;
            int first = Arrays.binarySearch(places, offset / width);
            first = first < 0 ? -first - 1 : first;
            int last = first;
            while (last < places.length && places[last] * width < end) {
                last++;
            }
            ByteBuffer stored = ByteBuffer.allocate((last - first) * width).order(ByteOrder.LITTLE_ENDIAN);
            values.read((long) first * width, stored);
            for (int i = 0; i < stored.capacity(); i++) {
                long at = places[first + i / width] * width + i % width - offset;
                if (at >= 0 && at < bytes.length) {
                    bytes[(int) at] = stored.get(i);
                }
            }
            target.put(bytes);
        }
    }
}
