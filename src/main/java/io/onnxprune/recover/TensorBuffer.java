// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import com.google.flatbuffers.FlatBufferBuilder;
import com.google.flatbuffers.FlatBufferBuilder.ByteBufferFactory;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import io.onnxprune.diag.WholeFile;
import io.onnxprune.ir.Tensor;
import io.onnxprune.recover.flatbuffers.CheckpointTensor;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.Map;

/** A FlatBuffer of named tensors while it is built, off the heap. */
final class TensorBuffer {
    /** Kernels read tensors in place, so they must be aligned to their elements. */
    private static final int ALIGNMENT = 8;
    /** For everything but the bytes of tensors. */
    private static final int OVERHEAD = 1 << 16;

    private final FlatBufferBuilder builder;

    /** The table of one tensor: each schema has one of its own. */
    interface Entry {
        /** Adds the table, given where its parts are, and returns where it is. */
        int add(FlatBufferBuilder builder, int name, int shape, int type, int content);
    }

    /** @param room bytes that will be needed, about */
    TensorBuffer(long room) {
        int capacity = (int) Math.min(Integer.MAX_VALUE / 2, room + OVERHEAD);
        builder = new FlatBufferBuilder(capacity, new ByteBufferFactory() {
            @Override
            public ByteBuffer newByteBuffer(int size) {
                return ByteBuffer.allocateDirect(size).order(ByteOrder.LITTLE_ENDIAN);
            }
        });
    }

    FlatBufferBuilder builder() {
        return builder;
    }

    /** Adds a vector of tensors and returns where it is. */
    int add(Map<String, Tensor> tensors, Entry entry) {
        return builder.createVectorOfTables(tensors.entrySet().stream()
                .mapToInt(tensor -> add(tensor.getKey(), tensor.getValue(), entry))
                .toArray());
    }

    private int add(String label, Tensor tensor, Entry entry) {
        int name = builder.createString(label);
        // Extents are the same in all schemas.
        int shape = CheckpointTensor.createShapeVector(builder, tensor.shape());
        int size = Math.toIntExact(tensor.bytes().size());
        tensor.bytes().read(0, builder.createUnintializedVector(1, size, ALIGNMENT));
        int content = builder.endVector();
        return entry.add(builder, name, shape, tensor.dtype().code(), content);
    }

    /**
     * Writes what was built, whole or not at all.
     *
     * @throws UserException if the place cannot be written
     */
    void save(Path file) {
        try (WholeFile whole = WholeFile.create(file)) {
            for (ByteBuffer bytes = builder.dataBuffer(); bytes.hasRemaining(); ) {
                whole.channel().write(bytes);
            }
            whole.complete();
        } catch (IOException e) {
            throw new UserException("cannot write " + file + ": " + FileFailure.reason(e), e);
        }
    }
}
