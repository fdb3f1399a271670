// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import com.google.flatbuffers.FlatBufferBuilder;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Bytes;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Tensor;
import io.onnxprune.recover.flatbuffers.Checkpoint;
import io.onnxprune.recover.flatbuffers.CheckpointModule;
import io.onnxprune.recover.flatbuffers.CheckpointTensor;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.channels.FileChannel.MapMode;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * The trained parameters in the FlatBuffer that ONNX Runtime's training API calls a checkpoint: here only the trainable tensors, all
 * float32.
 */
final class ParameterFile {
    private static final int VERSION = 2;

    /** What a FlatBuffer can hold: its offsets have 31 bits. */
    private static final long LARGEST = Integer.MAX_VALUE - (1L << 20);

    private ParameterFile() {}

    /**
     * Writes parameters, whose moments start at zero.
     *
     * @throws UserException if they are too many for such a file, or the place cannot be written
     */
    static void write(Path file, Map<String, Tensor> parameters) {
        long bytes = parameters.values().stream()
                .mapToLong(tensor -> tensor.bytes().size())
                .sum();
        if (bytes > LARGEST) {
            throw new UserException(String.format(
                    "%,d bytes of parameters are more than a checkpoint of ONNX Runtime's training API holds (2 GiB);"
                            + " train adapters (--train lora), norms or biases",
                    bytes));
        }
        TensorBuffer buffer = new TensorBuffer(bytes);
        int trainable = buffer.add(parameters, ParameterFile::tensor);
        // Frozen weights are constants of the graphs, but the vector of them must be there.
        int frozen = buffer.add(Map.of(), ParameterFile::tensor);
        FlatBufferBuilder builder = buffer.builder();
        CheckpointModule.startCheckpointModule(builder);
        CheckpointModule.addTrainable(builder, trainable);
        CheckpointModule.addFrozen(builder, frozen);
        int module = CheckpointModule.endCheckpointModule(builder);
        Checkpoint.startCheckpoint(builder);
        Checkpoint.addVersion(builder, VERSION);
        Checkpoint.addModule(builder, module);
        Checkpoint.finishCheckpointBuffer(builder, Checkpoint.endCheckpoint(builder));
        buffer.save(file);
    }

    private static int tensor(FlatBufferBuilder builder, int name, int shape, int type, int content) {
        CheckpointTensor.startCheckpointTensor(builder);
        CheckpointTensor.addName(builder, name);
        CheckpointTensor.addShape(builder, shape);
        CheckpointTensor.addType(builder, type);
        CheckpointTensor.addContent(builder, content);
        return CheckpointTensor.endCheckpointTensor(builder);
    }

    /**
     * The parameters of a checkpoint that was written here or by ONNX Runtime, mapped.
     *
     * @throws UserException if the file cannot be read or is none
     */
    static Map<String, Tensor> read(Path file) {
        try (FileChannel channel = FileChannel.open(file)) {
            ByteBuffer bytes = channel.map(MapMode.READ_ONLY, 0, channel.size()).order(ByteOrder.LITTLE_ENDIAN);
            // The identifier comes after the four bytes that say where the root is.
            if (bytes.remaining() < 8 || !Checkpoint.CheckpointBufferHasIdentifier(bytes)) {
                throw new UserException(file + " is not a checkpoint of a training session");
            }
            CheckpointModule module = Checkpoint.getRootAsCheckpoint(bytes).module();
            Map<String, Tensor> parameters = new LinkedHashMap<>();
            for (int i = 0; i < module.trainableLength(); i++) {
                CheckpointTensor tensor = module.trainable(i);
                long[] shape = new long[tensor.shapeLength()];
                Arrays.setAll(shape, tensor::shape);
                parameters.put(
                        tensor.name(),
                        Tensor.of(DType.of(tensor.type()), shape, Bytes.of(tensor.contentAsByteBuffer())));
            }
            return parameters;
        } catch (IOException e) {
            throw new UserException("cannot read the checkpoint " + file + ": " + FileFailure.reason(e), e);
        }
    }
}
