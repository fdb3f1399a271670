// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import com.google.flatbuffers.FlatBufferBuilder;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Tensor;
import io.onnxprune.recover.TensorTable.Fields;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.channels.FileChannel.MapMode;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Reads and writes the trained parameters as a checkpoint of ONNX Runtime's training API, a FlatBuffer (schema
 * {@code ort_training_checkpoint.fbs} of ONNX Runtime, file identifier {@code ODTC}). It holds only the trainable
 * tensors, all float32.
 */
final class ParameterFile {
    private static final String IDENTIFIER = "ODTC";
    private static final int VERSION = 2;

    /** Maximal size of a FlatBuffer, whose offsets have 31 bits. */
    private static final long MAX_BYTES = Integer.MAX_VALUE - (1L << 20);

    /** Fields of the root table and of the module state, by position in the schema. */
    private static final int ROOT_VERSION = 0;

    private static final int ROOT_MODULE = 1;
    private static final int ROOT_FIELDS = 4;
    private static final int MODULE_TRAINABLE = 0;
    private static final int MODULE_FROZEN = 1;
    private static final int MODULE_FIELDS = 4;
    private static final TensorTable TENSORS = new TensorTable(0, 2, 3, 4, 6);

    private ParameterFile() {}

    /**
     * Writes parameters; the optimizer's moments start at zero.
     *
     * @throws UserException when they are larger than such a file can be, or the file cannot be written
     */
    static void write(Path file, Map<String, Tensor> parameters) {
        long bytes = parameters.values().stream()
                .mapToLong(tensor -> tensor.bytes().size())
                .sum();
        if (bytes > MAX_BYTES) {
            throw new UserException(String.format(
                    "%,d bytes of parameters are more than a checkpoint of ONNX Runtime's training API holds (2 GiB);"
                            + " train adapters (--train lora), norms or biases",
                    bytes));
        }
        FlatBufferBuilder builder = TensorTable.builder(bytes);
        int trainable = TENSORS.write(builder, parameters);
        // Frozen weights are constants of the graphs, but the file must have a vector for them.
        int frozen = TensorTable.vector(builder);
        builder.startTable(MODULE_FIELDS);
        builder.addOffset(MODULE_TRAINABLE, trainable, 0);
        builder.addOffset(MODULE_FROZEN, frozen, 0);
        int module = builder.endTable();
        builder.startTable(ROOT_FIELDS);
        builder.addInt(ROOT_VERSION, VERSION, 0);
        builder.addOffset(ROOT_MODULE, module, 0);
        builder.finish(builder.endTable(), IDENTIFIER);
        TensorTable.save(builder, file);
    }

    /**
     * The parameters of a checkpoint of this class or of ONNX Runtime, memory-mapped.
     *
     * @throws UserException when the file cannot be read or is not a checkpoint
     */
    static Map<String, Tensor> read(Path file) {
        try (FileChannel channel = FileChannel.open(file)) {
            ByteBuffer bytes = channel.map(MapMode.READ_ONLY, 0, channel.size()).order(ByteOrder.LITTLE_ENDIAN);
            Fields root = Fields.root(bytes, IDENTIFIER);
            if (root == null) {
                throw new UserException(file + " is not a checkpoint of a training session");
            }
            Map<String, Tensor> parameters = new LinkedHashMap<>();
            TENSORS.read(root.table(ROOT_MODULE), MODULE_TRAINABLE, parameters);
            return parameters;
        } catch (IOException e) {
            throw new UserException("cannot read the checkpoint " + file + ": " + FileFailure.reason(e), e);
        }
    }
}
