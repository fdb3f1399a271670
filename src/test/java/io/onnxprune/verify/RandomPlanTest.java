// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.verify;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.TestModels;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Structure;
import io.onnxprune.eval.CausalLm;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.GraphChecker;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.Widening;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.onnx.ModelWriter;
import io.onnxprune.plan.Plan;
import io.onnxprune.rewrite.BlockRemover;
import io.onnxprune.rewrite.NormCorrection;
import io.onnxprune.rewrite.Slicer;
import io.onnxprune.verify.Verifier.Verification;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * For random plans, the pruned model computes the same as the dense model with the pruned units zeroed. Committed
 * models lose units in one plan and depth in another; those of the collection take turns. {@code -Dplans.seeds=9}
 * tries nine plans of each kind on every model.
 */
@Tag("ort")
@Tag("slow")
class RandomPlanTest {
    private static final double TOLERANCE = 1e-4;
    private static final int SEEDS = Integer.getInteger("plans.seeds", 1);

    @TempDir
    private Path folder;

    static Stream<Arguments> unitPlans() {
        return plans(0);
    }

    static Stream<Arguments> depthPlans() {
        return plans(1);
    }

    private static Stream<Arguments> plans(int turn) {
        List<String> names = TestModels.allNames();
        List<String> committed = TestModels.names();
        return IntStream.range(0, names.size())
                .filter(index -> SEEDS > 1 || index % 2 == turn || committed.contains(names.get(index)))
                .boxed()
                .flatMap(index -> IntStream.range(0, SEEDS)
                        .mapToObj(seed -> Arguments.of(names.get(index), 1 + (index + seed) % Math.max(SEEDS, 3))));
    }

    static List<String> models() {
        return TestModels.allNames();
    }

    @ParameterizedTest
    @MethodSource("unitPlans")
    void anyUnitsOfAnyDimensionsCanBePruned(String name, int seed) {
        Structure structure = TestModels.structure(name);
        Verification found =
                assertPrunes(structure, new Plan("", randomUnits(structure, new Random(seed)), null, null), seed);
        boolean cache = structure.analysis().program().inputs().stream()
                .anyMatch(input ->
                        input.info().dtype().isFloat() && input.info().shape().size() == 4);

        assertThat(found.decodeMaxAbsDiff().isPresent())
                .as("a decode step was compared")
                .isEqualTo(cache);
    }

    @ParameterizedTest
    @MethodSource("depthPlans")
    void anyLayersOrBlocksCanBePruned(String name, int seed) {
        Structure structure = TestModels.structure(name);
        Random random = new Random(seed);
        Map<String, int[]> units = random.nextBoolean() ? Map.of() : randomUnits(structure, random);
        boolean blocks = seed % 3 == 2;
        Plan plan = blocks
                ? new Plan(
                        "",
                        units,
                        null,
                        withFirst(subset(random, structure.stream().blocks().size())))
                : new Plan("", units, subset(random, structure.stream().layers()), null);
        if (removesFromBranch(structure, plan)) {
            assertThatThrownBy(() -> prune(structure, plan, Map.of()))
                    .isInstanceOf(UserException.class)
                    .hasMessageContaining(" is inside a branch of an If");
        } else {
            assertPrunes(structure, plan, seed);
        }
    }

    /** Positions are computed from the past length, which needs at least one cache. */
    @ParameterizedTest
    @ValueSource(strings = {"gpt2-cb", "gpt2-b", "opt-b"})
    void theLastCacheIsKeptWhenItGivesThePositions(String name) {
        Structure structure = TestModels.structure(name);
        int[] feedForward = IntStream.range(0, structure.stream().blocks().size())
                .filter(index -> index % 2 == 1)
                .toArray();

        assertThatThrownBy(() -> prune(structure, new Plan("", Map.of(), null, feedForward), Map.of()))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("reads the number of past tokens from its cache input")
                .hasMessageEndingWith("keep one of these blocks");
    }

    /** When positions are inputs, a model without attention is a model without a cache. */
    @ParameterizedTest
    @ValueSource(strings = {"llama-gqa-d", "stories-llama", "llama-gqa-b"})
    void allAttentionMayBeRemovedWhenPositionsAreInputs(String name) {
        Structure structure = TestModels.structure(name);
        int[] feedForward = IntStream.range(0, structure.stream().blocks().size())
                .filter(index -> index % 2 == 1)
                .toArray();

        assertPrunes(structure, new Plan("", Map.of(), null, feedForward), 1);
    }

    @ParameterizedTest
    @MethodSource("models")
    void removingNothingChangesNoBit(String name) {
        Path original = TestModels.file(name);
        Structure structure = TestModels.structure(name);
        Path written = folder.resolve("model.onnx");
        ModelWriter.write(prune(structure, Plan.keepAll(""), Map.of()), written, name.contains("-e-"));

        assertThat(prefill(written)).isEqualTo(prefill(original));
    }

    /** Patched shapes leave the exporter's own unused, and fused norms are edited and split at the same time. */
    @ParameterizedTest
    @ValueSource(strings = {"gpt2-cb", "llama-g16-e-fp32", "opt-f-a-bert"})
    void unitsAndALayerArePrunedTogether(String name) {
        Structure structure = TestModels.structure(name);
        Plan plan = new Plan("", randomUnits(structure, new Random(11)), new int[] {0}, null);

        assertPrunes(structure, plan, 11);
    }

    private Verification assertPrunes(Structure structure, Plan plan, int seed) {
        Map<Value, Tensor> updates = NormCorrection.of(structure, plan.keep(structure));
        Path written = folder.resolve("pruned.onnx");
        ModelWriter.write(prune(structure, plan, updates), written, seed == 3);
        Verification found = verify(structure, plan, updates, written, seed);

        assertThat(found.relative()).as(describe(plan)).isLessThan(TOLERANCE);
        assertThat(found.scale()).as("the logits say something").isGreaterThan(1e-3);
        return found;
    }

    private static Verification verify(
            Structure structure, Plan plan, Map<Value, Tensor> updates, Path written, int seed) {
        return Verifier.compare(
                new Verifier.Masked(structure, plan, updates), written, TestModels.runtime(), TOLERANCE, seed);
    }

    private static Model prune(Structure structure, Plan plan, Map<Value, Tensor> updates) {
        Dim.Keep keep = plan.keep(structure);
        Model model = BlockRemover.remove(structure, plan, Slicer.slice(structure, keep, updates));
        GraphChecker.check(model, "prune");
        return model;
    }

    private static Map<String, int[]> randomUnits(Structure structure, Random random) {
        Map<String, int[]> keep = new LinkedHashMap<>();
        for (Dimension dimension : structure.dimensions()) {
            if (dimension.isPrunable() && random.nextInt(3) > 0) {
                keep.put(dimension.name(), subset(random, dimension));
            }
        }
        return keep;
    }

    /** Some units of a dimension, ascending, no fewer than it allows. */
    private static int[] subset(Random random, Dimension dimension) {
        int[] kept = subset(random, dimension.size());
        return kept.length >= dimension.units().least()
                ? kept
                : IntStream.range(0, dimension.units().least()).toArray();
    }

    /** Some of the indices below {@code size}, ascending, at least one. */
    private static int[] subset(Random random, int size) {
        double share = 0.2 + 0.7 * random.nextDouble();
        int[] kept = IntStream.range(0, size)
                .filter(index -> random.nextDouble() < share)
                .toArray();
        return kept.length > 0 ? kept : new int[] {random.nextInt(size)};
    }

    /** Some models take the past length from a cache, so one block with attention is kept. */
    private static int[] withFirst(int[] indices) {
        return IntStream.concat(IntStream.of(0), Arrays.stream(indices))
                .distinct()
                .toArray();
    }

    private static boolean removesFromBranch(Structure structure, Plan plan) {
        var blocks = structure.stream().blocks();
        return IntStream.range(0, blocks.size())
                .anyMatch(index -> plan.removesBlock(index, blocks.get(index).layer())
                        && !blocks.get(index).add().branch().isEmpty());
    }

    private float[] prefill(Path file) {
        Path runnable = file;
        Model model = ModelReader.read(file);
        boolean bfloat =
                model.graph().initializers().values().stream().anyMatch(tensor -> tensor.dtype() == DType.BFLOAT16);
        if (bfloat) {
            // The CPU provider has no kernels for half precision.
            runnable = folder.resolve("widened.onnx");
            ModelWriter.write(Widening.widen(model), runnable, false);
        }
        try (CausalLm decoder = CausalLm.open(TestModels.runtime(), runnable)) {
            return decoder.logits(new long[][] {{1, 17, 103, 8, 51}}).toFloats();
        }
    }

    private static String describe(Plan plan) {
        List<String> parts = new ArrayList<>();
        plan.keep().forEach((dimension, kept) -> parts.add(dimension + " keeps " + kept.length));
        if (plan.layers() != null) {
            parts.add("layers " + Arrays.toString(plan.layers()));
        }
        if (plan.blocks() != null) {
            parts.add("blocks " + Arrays.toString(plan.blocks()));
        }
        return String.join(", ", parts);
    }
}
