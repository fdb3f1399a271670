// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import com.google.flatbuffers.FlatBufferBuilder;
import com.google.flatbuffers.FlatBufferBuilder.ByteBufferFactory;
import com.google.flatbuffers.Table;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Bytes;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Tensor;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.Map;

/**
 * The layout of named tensors in FlatBuffers of ONNX Runtime: tables of name, extents, element type and bytes. The
 * schemas have these fields at different positions.
 *
 * @param name position of the name
 * @param dims position of the extents
 * @param type position of the element type
 * @param data position of the bytes
 * @param fields number of fields
 */
record TensorTable(int name, int dims, int type, int data, int fields) {
    /** Alignment of tensors in bytes. Kernels use them in place, so they must be aligned to their elements. */
    private static final int ALIGNMENT = 8;
    /** Space in bytes for everything except the bytes of tensors. */
    private static final int OVERHEAD = 1 << 16;

    /**
     * A FlatBuffer builder with memory outside the heap.
     *
     * @param room expected number of bytes
     */
    static FlatBufferBuilder builder(long room) {
        int capacity = (int) Math.min(Integer.MAX_VALUE / 2, room + OVERHEAD);
        return new FlatBufferBuilder(capacity, new ByteBufferFactory() {
            @Override
            public ByteBuffer newByteBuffer(int size) {
                return ByteBuffer.allocateDirect(size).order(ByteOrder.LITTLE_ENDIAN);
            }
        });
    }

    /**
     * Writes the built buffer to a file, which appears only when complete.
     *
     * @throws UserException when the file cannot be written
     */
    static void save(FlatBufferBuilder builder, Path file) {
        Path part = file.resolveSibling(file.getFileName() + ".part");
        try {
            try (FileChannel channel = FileChannel.open(
                    part, StandardOpenOption.CREATE, StandardOpenOption.TRUNCATE_EXISTING, StandardOpenOption.WRITE)) {
                for (ByteBuffer bytes = builder.dataBuffer(); bytes.hasRemaining(); ) {
                    channel.write(bytes);
                }
            }
            Files.move(part, file, StandardCopyOption.REPLACE_EXISTING);
        } catch (IOException e) {
            throw new UserException("cannot write " + file + ": " + FileFailure.reason(e), e);
        }
    }

    /** Writes a vector of tensor tables and returns its offset. */
    int write(FlatBufferBuilder builder, Map<String, Tensor> tensors) {
        int[] tables = tensors.entrySet().stream()
                .mapToInt(entry -> write(builder, entry.getKey(), entry.getValue()))
                .toArray();
        return vector(builder, tables);
    }

    static int vector(FlatBufferBuilder builder, int... offsets) {
        builder.startVector(Integer.BYTES, offsets.length, Integer.BYTES);
        for (int i = offsets.length - 1; i >= 0; i--) {
            builder.addOffset(offsets[i]);
        }
        return builder.endVector();
    }

    private int write(FlatBufferBuilder builder, String label, Tensor tensor) {
        int nameOffset = builder.createString(label);
        long[] shape = tensor.shape();
        builder.startVector(Long.BYTES, shape.length, Long.BYTES);
        for (int axis = shape.length - 1; axis >= 0; axis--) {
            builder.addLong(shape[axis]);
        }
        int dimsOffset = builder.endVector();
        tensor.bytes()
                .read(
                        0,
                        builder.createUnintializedVector(
                                1, Math.toIntExact(tensor.bytes().size()), ALIGNMENT));
        int dataOffset = builder.endVector();
        builder.startTable(fields);
        builder.addOffset(name, nameOffset, 0);
        builder.addOffset(dims, dimsOffset, 0);
        builder.addInt(type, tensor.dtype().code(), 0);
        builder.addOffset(data, dataOffset, 0);
        return builder.endTable();
    }

    /** Reads the tensors of a vector without copying them. */
    void read(Fields owner, int vector, Map<String, Tensor> into) {
        for (int i = 0; i < owner.length(vector); i++) {
            Fields tensor = owner.element(vector, i);
            ByteBuffer extents = tensor.bytes(dims, Long.BYTES);
            long[] shape = new long[extents.remaining() / Long.BYTES];
            extents.asLongBuffer().get(shape);
            DType dtype = DType.of(tensor.number(type));
            into.put(tensor.text(name), Tensor.of(dtype, shape, Bytes.of(tensor.bytes(data, 1))));
        }
    }

    /** A table whose fields are accessed by their positions. */
    static final class Fields extends Table {
        private Fields(int position, ByteBuffer bytes) {
            __reset(position, bytes);
        }

        /** The root table of a buffer; null when the buffer does not have this file identifier. */
        static Fields root(ByteBuffer bytes, String identifier) {
            return bytes.remaining() < 8 || !__has_identifier(bytes, identifier)
                    ? null
                    : new Fields(bytes.getInt(0), bytes);
        }

        private int offset(int field) {
            return __offset(4 + 2 * field);
        }

        Fields table(int field) {
            return new Fields(__indirect(offset(field) + bb_pos), bb);
        }

        private int number(int field) {
            return offset(field) == 0 ? 0 : bb.getInt(offset(field) + bb_pos);
        }

        private int length(int field) {
            return offset(field) == 0 ? 0 : __vector_len(offset(field));
        }

        private Fields element(int field, int index) {
            return new Fields(__indirect(__vector(offset(field)) + Integer.BYTES * index), bb);
        }

        private String text(int field) {
            return __string(offset(field) + bb_pos);
        }

        private ByteBuffer bytes(int field, int elementSize) {
            int start = __vector(offset(field));
            return bb.duplicate()
                    .position(start)
                    .limit(start + elementSize * length(field))
                    .slice()
                    .order(ByteOrder.LITTLE_ENDIAN);
        }
    }
}
