// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.measure;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.TestModels;
import io.onnxprune.calibrate.CalibrationOptions;
import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.LoweredLinear;
import io.onnxprune.calibrate.Tap;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Role;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.plan.LayerInputs.Channels;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.rewrite.MaskedModel;
import io.onnxprune.rewrite.PrunedState;
import io.onnxprune.runtime.HostTensor;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("ort")
class ModelInputsTest {
    private static final int ROWS = 3;
    private static final int LENGTH = 12;

    @TempDir
    private Path folder;

    private CalibrationOptions options() {
        return new CalibrationOptions(CalibrationOptions.DEFAULT_MEMORY, folder, false);
    }

    private static List<long[]> rows() {
        Random random = new Random(5);
        return IntStream.range(0, ROWS)
                .mapToObj(row -> random.longs(LENGTH, 1, 60).toArray())
                .toList();
    }

    /** The dense model with zeros for pruned units has the same inputs at full size. */
    @ParameterizedTest
    @ValueSource(strings = {"llama-gqa-d", "opt-c", "gpt2-g-merged", "bloom-d"})
    void inputsOfAPrunedModelAreInChannelsOfTheDenseModel(String name) {
        Structure structure = TestModels.structure(name);
        Map<String, int[]> keep = new LinkedHashMap<>();
        List<LinearLayer> layers = new ArrayList<>();
        for (Dimension dimension : structure.dimensions()) {
            if (dimension.isPrunable() && PruneSet.standard().roles().contains(dimension.role())) {
                keep.put(
                        dimension.name(),
                        IntStream.range(0, dimension.size())
                                .filter(unit -> unit % 3 != 1)
                                .toArray());
                layers.addAll(LinearLayers.of(structure).of(dimension));
            }
        }
        Plan plan = new Plan("", keep, null, null);
        Map<Value, Channels> measured = new ModelInputs(
                        PrunedState.of(structure, plan, Map.of()), rows(), TestModels.runtime(), options(), Log.NONE)
                .measure(layers);

        assertThat(measured).hasSameSizeAs(layers);
        Map<LinearLayer, LoweredLinear> linears = linears(structure, layers);
        Calibrator masked = Calibrator.of(
                MaskedModel.of(structure, plan, Map.of()), TestModels.runtime(), options(), LENGTH, Log.NONE);
        List<Tap> taps = new ArrayList<>();
        linears.values().forEach(linear -> taps.add(new Tap.Total(linear.input())));
        linears.values().forEach(linear -> taps.add(new Tap.Squares(linear.input())));
        Map<Tap, HostTensor> sums = new HashMap<>();
        masked.gather(rows(), taps, sums::put);
        linears.forEach((layer, linear) -> {
            Channels channels = measured.get(layer.weight());
            assertSame(channels.total(), sums.get(new Tap.Total(linear.input())));
            assertSame(channels.squares(), sums.get(new Tap.Squares(linear.input())));
            assertThat(channels.squares()).contains(0);
            assertThat(Arrays.stream(channels.squares()).max().orElseThrow()).isPositive();
        });
    }

    private static void assertSame(double[] found, HostTensor expected) {
        assertThat(found).hasSize(expected.asFloats().remaining());
        for (int i = 0; i < found.length; i++) {
            double value = expected.asFloats().get(i);
            assertThat(found[i]).isCloseTo(value, within(1e-3 * (1 + Math.abs(value))));
        }
    }

    private Map<LinearLayer, LoweredLinear> linears(Structure structure, List<LinearLayer> layers) {
        Calibrator dense = Calibrator.of(
                structure.analysis().program().model(), TestModels.runtime(), options(), LENGTH, Log.NONE);
        Map<LinearLayer, LoweredLinear> found = new LinkedHashMap<>();
        for (LoweredLinear linear : dense.linears()) {
            layers.stream()
                    .filter(layer -> layer.weight().name().equals(linear.weight()))
                    .forEach(layer -> found.put(layer, linear));
        }
        assertThat(found).hasSameSizeAs(layers);
        return found;
    }

    @Test
    void anExpertGetsOnlyItsTokens() {
        Structure structure = TestModels.structure("qwen3-moe-d");
        Dimension expert = structure.dimensions().stream()
                .filter(dimension -> dimension.role() == Role.FFN)
                .findFirst()
                .orElseThrow();
        Dimension heads = structure.dimensions().get(0);
        List<LinearLayer> layers = new ArrayList<>(LinearLayers.of(structure).of(heads));
        layers.addAll(LinearLayers.of(structure).of(expert));
        Map<Value, Channels> measured = new ModelInputs(
                        PrunedState.whole(structure, Plan.keepAll("")),
                        rows(),
                        TestModels.runtime(),
                        options(),
                        Log.NONE)
                .measure(layers);

        assertThat(measured.get(layers.get(0).weight()).positions()).isEqualTo(ROWS * LENGTH);
        assertThat(measured.get(layers.get(1).weight()).positions()).isBetween(1L, ROWS * LENGTH - 1L);
    }

    @Test
    void measuredInputsAreNotMeasuredAgain() {
        Structure structure = TestModels.structure("llama-gqa-d");
        List<LinearLayer> all = LinearLayers.of(structure).all();
        ModelInputs inputs = new ModelInputs(
                PrunedState.whole(structure, Plan.keepAll("")), rows(), TestModels.runtime(), options(), Log.NONE);
        Map<Value, Channels> first = inputs.measure(all.subList(0, 3));
        Map<Value, Channels> second = inputs.measure(all.subList(1, 4));

        assertThat(first).hasSize(3);
        assertThat(second).hasSize(3);
        assertThat(second.get(all.get(2).weight()))
                .isSameAs(first.get(all.get(2).weight()));
    }

    @Test
    void noTokenReachesALinearLayerInAPrunedBlock() {
        Structure structure = TestModels.structure("llama-gqa-d");
        List<LinearLayer> all = LinearLayers.of(structure).all();
        PrunedState state = PrunedState.of(structure, new Plan("", Map.of(), new int[] {1, 2}, null), Map.of());
        ModelInputs inputs = new ModelInputs(state, rows(), TestModels.runtime(), options(), Log.NONE);

        assertThatThrownBy(() -> inputs.measure(all))
                .isInstanceOf(UserException.class)
                .hasMessageStartingWith("no token reaches node ");
    }
}
