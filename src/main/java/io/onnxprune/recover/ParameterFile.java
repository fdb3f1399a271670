// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import com.google.flatbuffers.FlatBufferBuilder;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.FlatTable;
import io.onnxprune.ir.FlatTensors;
import io.onnxprune.ir.Tensor;
import io.onnxprune.recover.flatbuffers.Checkpoint;
import io.onnxprune.recover.flatbuffers.CheckpointModule;
import io.onnxprune.recover.flatbuffers.CheckpointTensor;
import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.channels.FileChannel.MapMode;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

/**
 * The trained parameters in the FlatBuffer that ONNX Runtime's training API calls a checkpoint: here only the trainable tensors, all
 * float32.
 */
final class ParameterFile {
    private static final int VERSION = 2;

    /** What a FlatBuffer can hold: its offsets have 31 bits. */
    private static final long LARGEST = Integer.MAX_VALUE - (1L << 20);

    private static final String REMEDY = "remove it to train again";
    private static final String IDENTIFIER = "ODTC";
    private static final int MODULE_FIELD = 1;
    private static final int TRAINABLE_FIELD = 0;
    /** Fields that src/main/flatbuffers leaves out: only the runtime writes them. */
    private static final int GROUPS_FIELD = 2;

    private static final int STATES_FIELD = 3;
    private static final int MOMENTS_FIELD = 1;
    private static final FlatTensors TENSORS = new FlatTensors(0, 2, 3, 4);

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
        return read(file, root -> {
            FlatTable module = root.table(MODULE_FIELD);
            List<FlatTable> trainable = module == null ? null : module.tables(TRAINABLE_FIELD);
            return tensors(file, trainable);
        });
    }

    /**
     * Checks everything that ONNX Runtime reads of a checkpoint with moments.
     *
     * @throws UserException if the file cannot be read or something in it cannot be
     */
    static void check(Path file) {
        read(file);
        read(file, root -> {
            for (FlatTable group : orEmpty(root.tables(GROUPS_FIELD))) {
                for (FlatTable parameter : orEmpty(group.tables(STATES_FIELD))) {
                    tensors(file, parameter.tables(MOMENTS_FIELD));
                }
            }
            return null;
        });
    }

    private interface Reader<T> {
        T read(FlatTable root) throws IOException;
    }

    private static <T> T read(Path file, Reader<T> reader) {
        try (FileChannel channel = FileChannel.open(file)) {
            if (channel.size() > Integer.MAX_VALUE) {
                throw new UserException(file + " is larger than 2 GiB, the limit of a checkpoint; " + REMEDY);
            }
            return reader.read(FlatTable.root(channel.map(MapMode.READ_ONLY, 0, channel.size()), IDENTIFIER));
        } catch (FlatTable.DamagedException e) {
            throw new UserException(
                    "%s is not a checkpoint of a training session, or is damaged (%s); %s"
                            .formatted(file, e.getMessage(), REMEDY),
                    e);
        } catch (IOException e) {
            throw new UserException("cannot read the checkpoint " + file + ": " + FileFailure.reason(e), e);
        }
    }

    private static Map<String, Tensor> tensors(Path file, List<FlatTable> tables) throws IOException {
        return TENSORS.read(orEmpty(tables), "the checkpoint " + file, REMEDY);
    }

    private static List<FlatTable> orEmpty(List<FlatTable> tables) {
        return tables == null ? List.of() : tables;
    }
}
