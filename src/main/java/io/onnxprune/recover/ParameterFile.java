package io.onnxprune.recover;

import com.google.flatbuffers.FlatBufferBuilder;
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
import java.nio.channels.FileChannel.MapMode;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * The trained parameters in the FlatBuffer that ONNX Runtime's training API calls a checkpoint (schema
 * {@code ort_training_checkpoint.fbs} of ONNX Runtime, file identifier {@code ODTC}): here only the trainable tensors, all float32.
 */
final class ParameterFile {
    private static final String IDENTIFIER = "ODTC";
    private static final int VERSION = 2;

    /** Fields of the root, of the module's state and of a tensor, by position in the schema. */
    private static final int ROOT_VERSION = 0;

    private static final int ROOT_MODULE = 1;
    private static final int ROOT_FIELDS = 4;
    private static final int MODULE_TRAINABLE = 0;
    private static final int MODULE_FROZEN = 1;
    private static final int MODULE_FIELDS = 4;
    private static final int TENSOR_NAME = 0;
    private static final int TENSOR_DIMS = 2;
    private static final int TENSOR_TYPE = 3;
    private static final int TENSOR_DATA = 4;
    private static final int TENSOR_FIELDS = 6;

    private ParameterFile() {}

    /** Writes parameters, whose moments start at zero. */
    static void write(Path file, Map<String, Tensor> parameters) {
        FlatBufferBuilder builder = new FlatBufferBuilder(1 << 16);
        int[] tensors = parameters.entrySet().stream()
                .mapToInt(entry -> tensor(builder, entry.getKey(), entry.getValue()))
                .toArray();
        int trainable = vector(builder, tensors);
        // Frozen weights are constants of the graphs, but the vector of them must be there.
        int frozen = vector(builder, new int[0]);
        builder.startTable(MODULE_FIELDS);
        builder.addOffset(MODULE_TRAINABLE, trainable, 0);
        builder.addOffset(MODULE_FROZEN, frozen, 0);
        int module = builder.endTable();
        builder.startTable(ROOT_FIELDS);
        builder.addInt(ROOT_VERSION, VERSION, 0);
        builder.addOffset(ROOT_MODULE, module, 0);
        builder.finish(builder.endTable(), IDENTIFIER);
        try {
            Files.write(file, builder.sizedByteArray());
        } catch (IOException e) {
            throw new UserException("cannot write the checkpoint " + file + ": " + FileFailure.reason(e), e);
        }
    }

    private static int tensor(FlatBufferBuilder builder, String name, Tensor tensor) {
        int label = builder.createString(name);
        long[] shape = tensor.shape();
        builder.startVector(Long.BYTES, shape.length, Long.BYTES);
        for (int axis = shape.length - 1; axis >= 0; axis--) {
            builder.addLong(shape[axis]);
        }
        int dims = builder.endVector();
        int data = builder.createByteVector(tensor.bytes().toArray());
        builder.startTable(TENSOR_FIELDS);
        builder.addOffset(TENSOR_NAME, label, 0);
        builder.addOffset(TENSOR_DIMS, dims, 0);
        builder.addInt(TENSOR_TYPE, DType.FLOAT.code(), 0);
        builder.addOffset(TENSOR_DATA, data, 0);
        return builder.endTable();
    }

    private static int vector(FlatBufferBuilder builder, int[] offsets) {
        builder.startVector(Integer.BYTES, offsets.length, Integer.BYTES);
        for (int i = offsets.length - 1; i >= 0; i--) {
            builder.addOffset(offsets[i]);
        }
        return builder.endVector();
    }

    /** A table whose fields are read by their positions. */
    private static final class Fields extends Table {
        Fields(int position, ByteBuffer bytes) {
            __reset(position, bytes);
        }

        static boolean isCheckpoint(ByteBuffer bytes) {
            return __has_identifier(bytes, IDENTIFIER);
        }

        int offset(int field) {
            return __offset(4 + 2 * field);
        }

        Fields table(int field) {
            return new Fields(__indirect(offset(field) + bb_pos), bb);
        }

        int length(int field) {
            return offset(field) == 0 ? 0 : __vector_len(offset(field));
        }

        Fields element(int field, int index) {
            return new Fields(__indirect(__vector(offset(field)) + Integer.BYTES * index), bb);
        }

        String text(int field) {
            return __string(offset(field) + bb_pos);
        }

        ByteBuffer bytes(int field, int elementSize) {
            int start = __vector(offset(field));
            return bb.duplicate()
                    .position(start)
                    .limit(start + elementSize * length(field))
                    .slice()
                    .order(ByteOrder.LITTLE_ENDIAN);
        }
    }

    /**
     * The parameters of a checkpoint that was written here or by ONNX Runtime, mapped.
     *
     * @throws UserException if the file cannot be read or is none
     */
    static Map<String, Tensor> read(Path file) {
        try (FileChannel channel = FileChannel.open(file)) {
            ByteBuffer bytes = channel.map(MapMode.READ_ONLY, 0, channel.size()).order(ByteOrder.LITTLE_ENDIAN);
            if (bytes.remaining() < 8 || !Fields.isCheckpoint(bytes)) {
                throw new UserException(file + " is no checkpoint of a training session");
            }
            Fields module = new Fields(bytes.getInt(0), bytes).table(ROOT_MODULE);
            Map<String, Tensor> parameters = new LinkedHashMap<>();
            for (int i = 0; i < module.length(MODULE_TRAINABLE); i++) {
                Fields tensor = module.element(MODULE_TRAINABLE, i);
                ByteBuffer dims = tensor.bytes(TENSOR_DIMS, Long.BYTES);
                long[] shape = new long[dims.remaining() / Long.BYTES];
                dims.asLongBuffer().get(shape);
                parameters.put(
                        tensor.text(TENSOR_NAME),
                        Tensor.of(DType.FLOAT, shape, Bytes.of(tensor.bytes(TENSOR_DATA, 1))));
            }
            return parameters;
        } catch (IOException e) {
            throw new UserException("cannot read the checkpoint " + file + ": " + FileFailure.reason(e), e);
        }
    }
}
