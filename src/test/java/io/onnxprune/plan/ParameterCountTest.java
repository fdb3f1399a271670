// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.ParameterCount.Size;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("ort")
class ParameterCountTest {
    static List<String> models() {
        return TestModels.names();
    }

    @ParameterizedTest
    @MethodSource("models")
    void theDenseModelHasTheBytesOfItsConstants(String name) {
        Structure structure = TestModels.structure(name);
        Set<Tensor> tensors = new LinkedHashSet<>();
        collect(structure.analysis().program().model().graph(), tensors);

        assertThat(ParameterCount.of(structure).dense().bytes())
                .isEqualTo(tensors.stream()
                        .mapToLong(tensor -> tensor.bytes().size())
                        .sum());
    }

    /** The parameters of the trained network by its own definition, without tables and scalars of exporters. */
    @ParameterizedTest
    @ValueSource(strings = {"stories-llama", "stories-llama-e-fp32"})
    void exportsOfOneNetworkHaveItsParameters(String name) {
        Size dense = ParameterCount.of(TestModels.structure(name)).dense();

        assertThat(dense.parameters()).isEqualTo(1_318_528);
    }

    @Test
    void packedWeightsCountAsTheWeightsThatTheyRepresent() {
        Size packed =
                ParameterCount.of(TestModels.structure("llama-g16-e-int4")).dense();
        Size plain = ParameterCount.of(TestModels.structure("llama-g16-e-fp32")).dense();

        assertThat(packed.parameters()).isEqualTo(plain.parameters());
        assertThat(packed.bytes()).isLessThan(plain.bytes() / 2);
    }

    @ParameterizedTest
    @MethodSource("models")
    void underAPlanEveryConstantHasTheProductOfItsKeptExtents(String name) {
        Structure structure = TestModels.structure(name);
        ParameterCount count = ParameterCount.of(structure);
        Random random = new Random(5);
        for (int round = 0; round < 5; round++) {
            Plan plan = randomPlan(structure, random);
            Dim.Keep keep = plan.keep(structure);
            long saved = 0;
            Set<Tensor> seen = new LinkedHashSet<>();
            for (Map.Entry<Use, Dim[]> entry :
                    structure.analysis().constantUses().entrySet()) {
                Use use = entry.getKey();
                Tensor tensor = use.op().input(use.input()).constant();
                if (seen.add(tensor)) {
                    long elements = 1;
                    for (int axis = 0; axis < tensor.rank(); axis++) {
                        Dim dim = entry.getValue()[axis];
                        elements *= dim.isDynamic() ? tensor.dim(axis) : dim.kept(keep).length;
                    }
                    elements = isOfPrunedUnit(structure, keep, tensor) ? 0 : elements;
                    saved += tensor.bytes().size() - tensor.dtype().bytes(elements);
                }
            }
            // Numbers of an operator that no rule looks at, such as the steps of a slice, go with an expert too.
            saved += structure.dimensions().stream()
                    .flatMap(dimension -> dimension.units().own().stream())
                    .flatMap(Set::stream)
                    .map(Value::constant)
                    .filter(tensor -> isOfPrunedUnit(structure, keep, tensor) && seen.add(tensor))
                    .mapToLong(tensor -> tensor.bytes().size())
                    .sum();
            assertThat(count.dense().bytes() - count.under(plan).bytes()).isEqualTo(saved);
        }
    }

    private static boolean isOfPrunedUnit(Structure structure, Dim.Keep keep, Tensor tensor) {
        return structure.dimensions().stream()
                .filter(dimension -> keep.kept(dimension.atom()) != null)
                .anyMatch(dimension -> IntStream.range(
                                0, dimension.units().own().size())
                        .filter(unit -> Arrays.binarySearch(keep.kept(dimension.atom()), unit) < 0)
                        .anyMatch(unit -> dimension.units().own().get(unit).stream()
                                .anyMatch(value -> value.constant() == tensor)));
    }

    @Test
    void aUnitIsItsSlicesOfAllMembers() {
        Structure structure = TestModels.structure("stories-llama");
        ParameterCount count = ParameterCount.of(structure);

        assertThat(count.unit(named(structure, "ffn.2")).parameters()).isEqualTo(3 * 128);
        assertThat(count.unit(named(structure, "heads.0")).parameters()).isEqualTo(4 * 128 * 16);
        assertThat(count.unit(named(structure, "heads.0")).bytes()).isEqualTo(4 * 4 * 128 * 16);
    }

    @Test
    void aLayerHasTheConstantsThatOnlyItsBlocksUse() {
        Structure structure = TestModels.structure("stories-llama");
        ParameterCount count = ParameterCount.of(structure);
        long attention = 4 * 128 * 128 + 128;
        long forward = 3 * 128 * 344 + 128;

        assertThat(count.blocks(0).parameters()).isEqualTo(attention);
        assertThat(count.blocks(1).parameters()).isEqualTo(forward);
        assertThat(count.layer(3).parameters()).isEqualTo(attention + forward);
        Plan plan = new Plan("", Map.of(), new int[] {0, 2, 4}, null);
        assertThat(count.dense().parameters() - count.under(plan).parameters()).isEqualTo(3 * (attention + forward));
    }

    @ParameterizedTest
    @MethodSource("models")
    void everyLayerHoldsParameters(String name) {
        Structure structure = TestModels.structure(name);
        ParameterCount count = ParameterCount.of(structure);
        for (int layer = 0; layer < structure.stream().layers(); layer++) {
            assertThat(count.layer(layer).parameters())
                    .isBetween(count.dense().parameters() / 20, count.dense().parameters() / 2);
        }
    }

    @Test
    void copiesOfABlockInTwoBranchesArePrunedTogether() {
        Structure structure = TestModels.structure("gpt2-g-merged");
        ParameterCount count = ParameterCount.of(structure);
        List<int[]> blocks = PrunableBlocks.blocks(structure);

        assertThat(blocks).hasSize(4).allSatisfy(copies -> assertThat(copies).hasSize(2));
        assertThat(count.blocks(blocks.get(0)[0]).parameters()).isZero();
        Plan plan = new Plan("", Map.of(), null, without(8, blocks.get(0)));
        assertThat(count.dense().parameters() - count.under(plan).parameters()).isGreaterThan(10000);
    }

    static int[] without(int total, int... removed) {
        return IntStream.range(0, total)
                .filter(i -> IntStream.of(removed).noneMatch(index -> index == i))
                .toArray();
    }

    static Dimension named(Structure structure, String name) {
        return structure.dimensions().stream()
                .filter(dimension -> dimension.name().equals(name))
                .findFirst()
                .orElseThrow();
    }

    static Plan randomPlan(Structure structure, Random random) {
        Map<String, int[]> keep = new HashMap<>();
        for (Dimension dimension : structure.dimensions()) {
            if (dimension.isPrunable()) {
                int[] kept = IntStream.range(0, dimension.size())
                        .filter(index -> random.nextInt(3) > 0)
                        .toArray();
                int least = dimension.units().least();
                keep.put(
                        dimension.name(),
                        kept.length < least ? IntStream.range(0, least).toArray() : kept);
            }
        }
        return new Plan("", keep, null, null);
    }

    private static void collect(Graph graph, Set<Tensor> tensors) {
        tensors.addAll(graph.initializers().values());
        for (Node node : graph.nodes()) {
            for (Attribute attribute : node.attributes().values()) {
                if (attribute instanceof Attribute.Constant constant) {
                    tensors.add(constant.tensor());
                } else if (attribute instanceof Attribute.Body body) {
                    collect(body.graph(), tensors);
                }
            }
        }
    }
}
