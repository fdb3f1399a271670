// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.onnx;

import ai.onnx.proto.OnnxMl.TensorProto;
import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;
import io.onnxprune.ir.DType;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/** Converts the typed value fields of a TensorProto (float_data, int32_data, ...) to the bytes of raw_data. */
final class TensorFields {
    private TensorFields() {}

    /**
     * The values as raw_data. The comments of TensorProto in onnx.proto say which field holds which element type. The
     * result is shorter than the shape requires when the field has too few values.
     *
     * @param expected the number of bytes that the shape requires
     */
    static ByteString toRawData(TensorProto proto, DType dtype, long expected) {
        // Never more than the field holds: a damaged shape may claim any number of elements.
        ByteBuffer raw = ByteBuffer.allocate((int) Math.min(expected, held(proto, dtype)))
                .order(ByteOrder.LITTLE_ENDIAN);
        switch (dtype) {
            case FLOAT, COMPLEX64 -> {
                for (int i = 0; i < proto.getFloatDataCount() && raw.remaining() >= 4; i++) {
                    raw.putFloat(proto.getFloatData(i));
                }
            }
            case DOUBLE, COMPLEX128 -> {
                for (int i = 0; i < proto.getDoubleDataCount() && raw.remaining() >= 8; i++) {
                    raw.putDouble(proto.getDoubleData(i));
                }
            }
            case INT64 -> {
                for (int i = 0; i < proto.getInt64DataCount() && raw.remaining() >= 8; i++) {
                    raw.putLong(proto.getInt64Data(i));
                }
            }
            case UINT32, UINT64 -> {
                for (int i = 0; i < proto.getUint64DataCount() && raw.remaining() >= dtype.bits() / 8; i++) {
                    put(raw, dtype.bits(), proto.getUint64Data(i));
                }
            }
            default -> {
                for (int i = 0;
                        i < proto.getInt32DataCount() && raw.remaining() >= Math.max(1, dtype.bits() / 8);
                        i++) {
                    put(raw, dtype.bits(), proto.getInt32Data(i));
                }
            }
        }
        return UnsafeByteOperations.unsafeWrap(raw.flip());
    }

    /** The number of bytes that the values of the field take. */
    private static long held(TensorProto proto, DType dtype) {
        int width = Math.max(1, dtype.bits() / 8);
        long held = switch (dtype) {
            case FLOAT, COMPLEX64 -> 4L * proto.getFloatDataCount();
            case DOUBLE, COMPLEX128 -> 8L * proto.getDoubleDataCount();
            case INT64 -> 8L * proto.getInt64DataCount();
            case UINT32, UINT64 -> (long) width * proto.getUint64DataCount();
            default -> (long) width * proto.getInt32DataCount();
        };
        return Math.min(held, Integer.MAX_VALUE - 8);
    }

    private static void put(ByteBuffer raw, int bits, long value) {
        switch (bits) {
            case 64 -> raw.putLong(value);
            case 32 -> raw.putInt((int) value);
            case 16 -> raw.putShort((short) value);
            default -> raw.put((byte) value);
        }
    }
}
