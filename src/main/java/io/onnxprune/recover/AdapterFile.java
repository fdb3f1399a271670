// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import com.google.flatbuffers.FlatBufferBuilder;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.FlatTable;
import io.onnxprune.ir.FlatTensors;
import io.onnxprune.ir.Tensor;
import io.onnxprune.recover.flatbuffers.Adapter;
import io.onnxprune.recover.flatbuffers.AdapterTensor;
import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.channels.FileChannel.MapMode;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

/**
 * Adapters in the FlatBuffer that ONNX Runtime loads beside a model ({@code OrtLoraAdapter}; usual extension {@value #EXTENSION}):
 * contents for inputs of the model, by name.
 */
public final class AdapterFile {
    /** What the names of such files end in. */
    public static final String EXTENSION = ".onnx_adapter";

    private static final int FORMAT = 1;

    /** As in the schema of ONNX Runtime, of which src/main/flatbuffers has a copy. */
    private static final String IDENTIFIER = "TORT";

    private static final int TENSORS_FIELD = 3;
    private static final FlatTensors TENSORS = new FlatTensors(0, 1, 2, 3);

    private AdapterFile() {}

    /**
     * Writes an adapter.
     *
     * @param parameters by the names of the model's inputs
     * @throws UserException if the place cannot be written
     */
    public static void write(Path file, Map<String, Tensor> parameters) {
        TensorBuffer buffer = new TensorBuffer(parameters.values().stream()
                .mapToLong(tensor -> tensor.bytes().size())
                .sum());
        int tensors = buffer.add(parameters, AdapterFile::tensor);
        FlatBufferBuilder builder = buffer.builder();
        Adapter.startAdapter(builder);
        Adapter.addFormat(builder, FORMAT);
        // Versions that a publisher of adapters may count; the runtime only hands them on.
        Adapter.addAdapterVersion(builder, 1);
        Adapter.addModelVersion(builder, 1);
        Adapter.addTensors(builder, tensors);
        Adapter.finishAdapterBuffer(builder, Adapter.endAdapter(builder));
        buffer.save(file);
    }

    /**
     * Reads an adapter.
     *
     * @return tensors by the names of the model's inputs
     * @throws UserException if the file cannot be read or is no adapter
     */
    public static Map<String, Tensor> read(Path file) {
        String remedy = "write it again with recover --keep-adapters, or download it again";
        try (FileChannel channel = FileChannel.open(file)) {
            FlatTable root = FlatTable.root(channel.map(MapMode.READ_ONLY, 0, channel.size()), IDENTIFIER);
            List<FlatTable> tensors = root.tables(TENSORS_FIELD);
            return tensors == null ? Map.of() : TENSORS.read(tensors, "the adapter " + file, remedy);
        } catch (FlatTable.DamagedException e) {
            throw new UserException(
                    "%s is not an adapter of ONNX Runtime (%s); %s".formatted(file, e.getMessage(), remedy), e);
        } catch (IOException | IllegalArgumentException e) {
            throw new UserException("cannot read the adapter " + file + ": " + e.getMessage(), e);
        }
    }

    private static int tensor(FlatBufferBuilder builder, int name, int shape, int type, int content) {
        AdapterTensor.startAdapterTensor(builder);
        AdapterTensor.addName(builder, name);
        AdapterTensor.addShape(builder, shape);
        AdapterTensor.addType(builder, type);
        AdapterTensor.addContent(builder, content);
        return AdapterTensor.endAdapterTensor(builder);
    }
}
