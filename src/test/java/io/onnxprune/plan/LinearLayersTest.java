// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import io.onnxprune.calibrate.CalibrationOptions;
import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.LoweredLinear;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Role;
import io.onnxprune.dims.Structure;
import io.onnxprune.rewrite.Slicer;
import io.onnxprune.rewrite.Slicer.Slice;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

@Tag("ort")
@Tag("slow")
class LinearLayersTest {
    private static final Set<Role> STANDARD = EnumSet.of(Role.HEADS, Role.KV_HEADS, Role.QUERY_HEADS, Role.FFN);

    static List<String> models() {
        return TestModels.allNames();
    }

    static List<String> committed() {
        return TestModels.names();
    }

    private static List<Dimension> prunable(Structure structure) {
        return structure.dimensions().stream()
                .filter(dimension -> dimension.isPrunable() && STANDARD.contains(dimension.role()))
                .toList();
    }

    @ParameterizedTest
    @MethodSource("models")
    void headsAndChannelsHaveConsumersUnlessWeightsAreQuantisedOrStacked(String name) {
        Structure structure = TestModels.structure(name);
        LinearLayers layers = LinearLayers.of(structure);
        boolean quantised = structure.analysis().program().ops().stream()
                .anyMatch(op -> op.node().op().matches("MatMulNBits|MatMulInteger"));
        assertThat(prunable(structure)).isNotEmpty();
        for (Dimension dimension : prunable(structure)) {
            // The weight of a convolution of every channel, [C, 1, k], is no stack.
            boolean stacked = dimension.members().stream()
                    .anyMatch(member -> Arrays.stream(member.tensor().shape())
                                    .filter(extent -> extent > 1)
                                    .count()
                            > 2);
            if (quantised || stacked) {
                assertThat(layers.problem(dimension)).contains("node ");
                assertThat(layers.of(dimension)).isEmpty();
            } else {
                assertThat(layers.problem(dimension)).as(dimension.name()).isNull();
                assertThat(layers.of(dimension)).as(dimension.name()).isNotEmpty();
            }
        }
    }

    /** A row is kept where all its units are kept, as in slicing. */
    @ParameterizedTest
    @MethodSource("models")
    void aChannelBelongsToTheUnitThatItIsPrunedWith(String name) {
        Structure structure = TestModels.structure(name);
        LinearLayers layers = LinearLayers.of(structure);
        Plan plan = new Plan("", Map.of(), null, null);
        for (Dimension dimension : prunable(structure)) {
            plan.keep()
                    .put(
                            dimension.name(),
                            IntStream.range(0, dimension.size())
                                    .filter(unit -> unit % 3 != 1)
                                    .toArray());
        }
        Map<String, Slice> slices =
                Slicer.trace(structure, plan.keep(structure), Map.of()).slices();
        for (Dimension dimension : prunable(structure)) {
            for (LinearLayer layer : layers.of(dimension)) {
                boolean[] kept = new boolean[layer.inputs()];
                Arrays.fill(kept, true);
                for (Dimension other : prunable(structure)) {
                    int[] units =
                            layer.dim().atoms().contains(other.atom()) ? layer.units(other) : new int[kept.length];
                    for (int row = 0; row < kept.length; row++) {
                        kept[row] &= units[row] % 3 != 1;
                    }
                }
                int[] rows =
                        IntStream.range(0, kept.length).filter(row -> kept[row]).toArray();
                assertThat(slices.get(layer.weight().name()).kept()[layer.axis()])
                        .as(layer.node())
                        .containsExactly(rows);
            }
        }
    }

    /** Calibration finds linear layers independently, by the operators of the lowered model. */
    @ParameterizedTest
    @MethodSource("committed")
    void consumersAreTheLinearLayersThatCalibrationMeasures(String name, @TempDir Path folder) {
        Structure structure = TestModels.structure(name);
        LinearLayers layers = LinearLayers.of(structure);
        CalibrationOptions options = new CalibrationOptions(CalibrationOptions.DEFAULT_MEMORY, folder, false);
        Set<String> measured = new HashSet<>();
        List<LoweredLinear> linears = Calibrator.of(
                        structure.analysis().program().model(), TestModels.runtime(), options, 8, Log.NONE)
                .linears();
        for (LoweredLinear linear : linears) {
            LinearLayer layer = layers.ofWeight(linear.weight());
            if (layer != null) {
                assertThat(layer.inputs()).isEqualTo(linear.input().width());
                assertThat(layer.outputs()).isEqualTo(linear.output().width());
                measured.add(linear.weight());
            }
        }
        for (Dimension dimension : prunable(structure)) {
            assertThat(layers.of(dimension))
                    .allSatisfy(layer ->
                            assertThat(measured).contains(layer.weight().name()));
        }
    }

    @Test
    void queryHeadsAreTheSameOnesInEveryGroup() {
        Structure structure = TestModels.structure("llama-gqa-d");
        Dimension queries = structure.dimensions().stream()
                .filter(dimension -> dimension.role() == Role.QUERY_HEADS)
                .findFirst()
                .orElseThrow();
        Dimension groups = structure.dimensions().stream()
                .filter(dimension -> dimension.role() == Role.KV_HEADS && dimension.layer() == queries.layer())
                .findFirst()
                .orElseThrow();
        LinearLayers layers = LinearLayers.of(structure);
        LinearLayer layer = layers.of(queries).get(0);

        assertThat(layers.of(groups)).containsExactly(layer);
        int size = layer.inputs() / groups.size() / queries.size();
        int[] ofQuery = layer.units(queries);
        int[] ofGroup = layer.units(groups);
        for (int row = 0; row < layer.inputs(); row++) {
            assertThat(ofQuery[row]).isEqualTo(row / size % queries.size());
            assertThat(ofGroup[row]).isEqualTo(row / size / queries.size());
        }
    }

    @Test
    void aWeightThatIsAlsoLookedUpMayNotBeChanged() {
        assertThat(problemOfHidden("qwen2-g16-e-fp32")).contains("shares its weight with node", "Gather");
        assertThat(problemOfHidden("llama-gqa-d")).isNull();
    }

    private static String problemOfHidden(String name) {
        Structure structure = TestModels.structure(name);
        return structure.dimensions().stream()
                .filter(dimension -> dimension.role() == Role.HIDDEN)
                .findFirst()
                .map(LinearLayers.of(structure)::problem)
                .orElse(null);
    }
}
