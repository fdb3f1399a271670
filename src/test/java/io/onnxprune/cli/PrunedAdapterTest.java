// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.onnx.ModelWriter;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.recover.AdapterFile;
import io.onnxprune.rewrite.AdapterInputs;
import io.onnxprune.rewrite.AdapterInputs.Place;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** An adapter beside a model is cut with it, and the pruned model takes it. */
@Tag("ort")
class PrunedAdapterTest {
    @TempDir
    private Path folder;

    private Path model;

    @BeforeEach
    void modelWithAdapter() throws IOException {
        Structure structure = TestModels.structure("llama-gqa-d");
        LinearLayers layers = LinearLayers.of(structure);
        AdapterInputs room = AdapterInputs.of(
                structure,
                layers.all().stream()
                        .map(layer -> new Place(
                                layer.weight().name(), layers.applications(layer), layer.inputs(), layer.outputs()))
                        .toList());
        Map<String, Tensor> adapter = new LinkedHashMap<>();
        room.inputs().forEach((place, names) -> {
            adapter.put(names.down(), filled(place.inputs(), 2));
            adapter.put(names.up(), filled(2, place.outputs()));
        });
        model = Files.createDirectory(folder.resolve("in")).resolve("model.onnx");
        ModelWriter.write(room.model(), model, false);
        AdapterFile.write(model.resolveSibling("model.onnx_adapter"), adapter);
    }

    private static Tensor filled(int rows, int columns) {
        float[] values = new float[rows * columns];
        Arrays.fill(values, 0.02f);
        return Tensor.ofFloats(DType.FLOAT, new long[] {rows, columns}, values);
    }

    @Test
    void besideAModelFile() throws IOException {
        Path out = folder.resolve("small.onnx");

        Cli.Run run = Cli.run(model, "--method", "magnitude", "-o", out).succeeded();

        assertThat(run.err()).contains("is cut to the pruned model, as small.onnx_adapter");
        assertFits(out);
    }

    @Test
    void inAFolder() throws IOException {
        Path out = folder.resolve("small");

        Cli.run(model.getParent(), "--method", "magnitude", "--prune", "heads,ffn,hidden", "-o", out)
                .succeeded();

        assertFits(out.resolve("model.onnx"));
    }

    @Test
    void anAdapterOfAnotherModelIsLeftOutWithTheReason() throws IOException {
        AdapterFile.write(model.resolveSibling("model.onnx_adapter"), Map.of("other.lora_A", filled(2, 3)));
        Path out = folder.resolve("small.onnx");

        Cli.Run run = Cli.run(model, "--method", "magnitude", "-o", out).succeeded();

        assertThat(run.err())
                .contains("does not fit the pruned model: the model has no optional input \"other.lora_A\"");
        assertThat(folder.resolve("small.onnx_adapter")).doesNotExist();
    }

    private void assertFits(Path out) throws IOException {
        String name = out.getFileName().toString().replace(".onnx", ".onnx_adapter");
        Map<String, Tensor> adapter = AdapterFile.read(out.resolveSibling(name));
        Map<String, Tensor> defaults = ModelReader.read(out).graph().initializers();
        assertThat(adapter).isNotEmpty();
        for (ValueInfo input : ModelReader.read(out).graph().inputs()) {
            Tensor given = adapter.get(input.name());
            if (given == null) {
                assertThat(defaults).doesNotContainKey(input.name());
                continue;
            }
            for (int axis = 0; axis < 2; axis++) {
                ValueInfo.Extent extent = input.shape().get(axis);
                assertThat(given.dim(axis)).isEqualTo(extent.isKnown() ? extent.size() : 2);
            }
        }
        Cli.run("eval", out, "--adapter", out.resolveSibling(name), "--data", Cli.tokens(folder))
                .succeeded();
    }
}
