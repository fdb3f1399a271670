// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.rewrite;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.TestModels;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Structure;
import io.onnxprune.eval.CausalLm;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.ir.ValueInfo.Extent;
import io.onnxprune.onnx.ModelWriter;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.plan.Plan;
import io.onnxprune.rewrite.AdapterInputs.Names;
import io.onnxprune.rewrite.AdapterInputs.Place;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** A model with optional inputs for adapters is pruned with the inputs. */
@Tag("ort")
class AdapterInputsTest {
    private static final int RANK = 3;

    @TempDir
    private Path folder;

    private final Structure plain = TestModels.structure("llama-gqa-d");
    private final LinearLayers layers = LinearLayers.of(plain);
    private final AdapterInputs room =
            AdapterInputs.of(plain, layers.all().stream().map(this::place).toList());
    private final Structure structure = TestModels.structure(room.model());
    private final Plan plan = plan(structure);

    private Place place(LinearLayer layer) {
        return new Place(layer.weight().name(), layers.applications(layer), layer.inputs(), layer.outputs());
    }

    private static Plan plan(Structure structure) {
        Map<String, int[]> keep = new LinkedHashMap<>();
        for (Dimension dimension : structure.dimensions()) {
            if (dimension.isPrunable() && dimension.name().matches("(kv_heads|ffn)\\..*")) {
                keep.put(
                        dimension.name(),
                        IntStream.range(0, dimension.size())
                                .filter(unit -> unit % 3 > 0)
                                .toArray());
            }
        }
        assertThat(keep).hasSizeGreaterThan(3);
        return new Plan("", keep, null, null);
    }

    @Test
    void theRankStaysOpenAndTheOtherExtentsShrink() {
        Model pruned = Slicer.slice(structure, plan.keep(structure), Map.of());

        Dimension channels = plain.dimensions().stream()
                .filter(dimension -> dimension.name().equals("ffn.0"))
                .findFirst()
                .orElseThrow();
        Names down = Objects.requireNonNull(
                room.inputs().get(place(layers.of(channels).get(0))));
        int kept = plan.keep().get("ffn.0").length;
        assertThat(shape(pruned, down.down())).containsExactly(Extent.of(kept), new Extent(-1, "lora_rank"));
        assertThat(shape(pruned, down.up())).containsExactly(new Extent(-1, "lora_rank"), Extent.of(64));
        assertThat(pruned.graph().initializers().get(down.down()).shape()).containsExactly(kept, 0);
    }

    private static List<Extent> shape(Model model, String input) {
        return model.graph().inputs().stream()
                .filter(info -> info.name().equals(input))
                .findFirst()
                .map(ValueInfo::shape)
                .orElseThrow();
    }

    /** (W + A·B) without some units is W without them and A·B without them. */
    @Test
    void aSlicedAdapterDoesTheSameAsOneThatWasMergedBefore() {
        Random random = new Random(4);
        Map<String, Tensor> adapter = new LinkedHashMap<>();
        Map<String, Tensor> merged =
                new LinkedHashMap<>(plain.analysis().program().model().graph().initializers());
        room.inputs().forEach((place, names) -> {
            Tensor down = random(random, place.inputs(), RANK);
            Tensor up = random(random, RANK, place.outputs());
            adapter.put(names.down(), down);
            adapter.put(names.up(), up);
            merged.compute(place.name(), (name, weight) -> sum(weight, down, up, layers.ofWeight(name)));
        });
        Structure before = TestModels.structure(plain.analysis()
                .program()
                .model()
                .withGraph(plain.analysis().program().model().graph().withInitializers(merged)));
        Dim.Keep keep = plan.keep(structure);
        Model pruned = Slicer.slice(structure, keep, Map.of());
        Map<String, Tensor> given = new LinkedHashMap<>(pruned.graph().initializers());
        adapter.forEach((name, tensor) -> {
            Value input = structure.analysis().program().initializers().get(name);
            given.put(name, Slicer.sliceLike(structure, keep, input, tensor));
        });

        float[] expected = logits(Slicer.slice(before, plan(before).keep(before), Map.of()));
        float[] found = logits(pruned.withGraph(pruned.graph().withInitializers(given)));

        assertThat(logits(pruned)).isNotEqualTo(found);
        assertThat(found).hasSameSizeAs(expected);
        for (int i = 0; i < found.length; i++) {
            assertThat(found[i]).isCloseTo(expected[i], within(1e-4f));
        }
    }

    @Test
    void anAdapterOfOtherExtentsIsRefused() {
        String name = room.inputs().values().iterator().next().down();
        Value input = structure.analysis().program().initializers().get(name);

        assertThatThrownBy(
                        () -> Slicer.sliceLike(structure, plan.keep(structure), input, random(new Random(1), 5, RANK)))
                .isInstanceOf(UserException.class)
                .hasMessage("\"" + name + "\" is float[5, 3], and the model takes float[64, 0]");
    }

    @Test
    void emptyAdaptersAreNoConsumers() {
        LinearLayers found = LinearLayers.of(structure);

        assertThat(found.all()).hasSameSizeAs(layers.all());
        for (Dimension dimension : structure.dimensions()) {
            if (plan.keep().containsKey(dimension.name())) {
                assertThat(found.problem(dimension)).isNull();
            }
        }
    }

    private static Tensor random(Random random, int rows, int columns) {
        float[] values = new float[rows * columns];
        for (int i = 0; i < values.length; i++) {
            values[i] = (float) (0.05 * random.nextGaussian());
        }
        return Tensor.ofFloats(DType.FLOAT, new long[] {rows, columns}, values);
    }

    /** W + A·B, in the orientation of W. */
    private static Tensor sum(Tensor weight, Tensor down, Tensor up, LinearLayer layer) {
        float[] values = weight.toFloats();
        float[] a = down.toFloats();
        float[] b = up.toFloats();
        int inputs = layer.inputs();
        int outputs = layer.outputs();
        boolean rows = layer.axis() == 0;
        for (int i = 0; i < inputs; i++) {
            for (int j = 0; j < outputs; j++) {
                float change = 0;
                for (int r = 0; r < RANK; r++) {
                    change += a[i * RANK + r] * b[r * outputs + j];
                }
                values[rows ? i * outputs + j : j * inputs + i] += change;
            }
        }
        return Tensor.ofFloats(weight.dtype(), weight.shape(), values);
    }

    private float[] logits(Model model) {
        Path file = folder.resolve("model.onnx");
        ModelWriter.write(model, file, false);
        try (CausalLm decoder = CausalLm.open(TestModels.runtime(), file)) {
            return decoder.logits(new long[][] {{1, 17, 33, 8, 51}}).toFloats();
        }
    }
}
