// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import com.google.flatbuffers.FlatBufferBuilder;
import io.onnxprune.ir.Tensor;
import java.nio.file.Path;
import java.util.Map;

/**
 * Writes adapters as the FlatBuffer that ONNX Runtime loads beside a model ({@code OrtLoraAdapter}; schema
 * {@code adapter_schema.fbs} of ONNX Runtime, file identifier {@code TORT}, usual extension {@value #EXTENSION}):
 * values of model inputs, by name.
 */
public final class AdapterFile {
    /** The extension of adapter files. */
    public static final String EXTENSION = ".onnx_adapter";

    private static final String IDENTIFIER = "TORT";
    private static final int FORMAT = 1;

    /** Fields of the root table, by position in the schema. */
    private static final int ROOT_FORMAT = 0;

    private static final int ROOT_ADAPTER = 1;
    private static final int ROOT_MODEL = 2;
    private static final int ROOT_PARAMETERS = 3;
    private static final int ROOT_FIELDS = 4;
    private static final TensorTable TENSORS = new TensorTable(0, 1, 2, 3, 4);

    private AdapterFile() {}

    /**
     * Writes an adapter.
     *
     * @param parameters values by the names of the model's inputs
     * @throws io.onnxprune.diag.UserException when the file cannot be written
     */
    public static void write(Path file, Map<String, Tensor> parameters) {
        FlatBufferBuilder builder = TensorTable.builder(parameters.values().stream()
                .mapToLong(tensor -> tensor.bytes().size())
                .sum());
        int tensors = TENSORS.write(builder, parameters);
        builder.startTable(ROOT_FIELDS);
        builder.addInt(ROOT_FORMAT, FORMAT, 0);
        // Version numbers for publishers of adapters; the runtime ignores them.
        builder.addInt(ROOT_ADAPTER, 1, 0);
        builder.addInt(ROOT_MODEL, 1, 0);
        builder.addOffset(ROOT_PARAMETERS, tensors, 0);
        builder.finish(builder.endTable(), IDENTIFIER);
        TensorTable.save(builder, file);
    }
}
