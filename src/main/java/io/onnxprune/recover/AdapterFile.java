// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import com.google.flatbuffers.FlatBufferBuilder;
import io.onnxprune.ir.Tensor;
import io.onnxprune.recover.flatbuffers.Adapter;
import io.onnxprune.recover.flatbuffers.AdapterTensor;
import java.nio.file.Path;
import java.util.Map;

/**
 * Adapters in the FlatBuffer that ONNX Runtime loads beside a model ({@code OrtLoraAdapter}; usual extension {@value #EXTENSION}):
 * contents for inputs of the model, by name.
 */
public final class AdapterFile {
    /** What the names of such files end in. */
    public static final String EXTENSION = ".onnx_adapter";

    private static final int FORMAT = 1;

    private AdapterFile() {}

    /**
     * Writes an adapter.
     *
     * @param parameters by the names of the model's inputs
     * @throws io.onnxprune.diag.UserException if the place cannot be written
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

    private static int tensor(FlatBufferBuilder builder, int name, int shape, int type, int content) {
        AdapterTensor.startAdapterTensor(builder);
        AdapterTensor.addName(builder, name);
        AdapterTensor.addShape(builder, shape);
        AdapterTensor.addType(builder, type);
        AdapterTensor.addContent(builder, content);
        return AdapterTensor.endAdapterTensor(builder);
    }
}
