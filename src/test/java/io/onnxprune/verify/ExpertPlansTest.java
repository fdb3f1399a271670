// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.verify;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Role;
import io.onnxprune.dims.Structure;
import io.onnxprune.eval.CausalLm;
import io.onnxprune.ir.GraphChecker;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Tensor;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.onnx.ModelWriter;
import io.onnxprune.plan.Allocation;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.Magnitude;
import io.onnxprune.plan.ParameterCount;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.plan.Reduction;
import io.onnxprune.rewrite.Slicer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Mixtures of experts in all forms lose experts, channels of experts, or both, and compute what they should. */
@Tag("ort")
class ExpertPlansTest {
    private static final double TOLERANCE = 1e-4;
    private static final int SEEDS = Integer.getInteger("plans.seeds", 2);
    private static final List<String> FORMS = List.of(
            "fused-experts",
            "int4-experts",
            "biased-experts",
            "unrolled-experts",
            "mixtral-a",
            "qwen3-moe-d",
            "mla",
            "forms/dense-experts",
            "forms/weighed-experts",
            "forms/switch-experts",
            "forms/piecewise-experts",
            "forms/joined-experts",
            "forms/tiled-experts",
            "cases/07-gptoss-moe/model",
            "cases/07-gptoss-moe/model_b");

    @TempDir
    private Path folder;

    private static Path file(String name) {
        if (name.startsWith("cases/")) {
            return TestModels.caseFile(name.substring("cases/".length()));
        }
        return name.startsWith("forms/")
                ? Path.of("src", "test", "resources", name, "model.onnx")
                : TestModels.file(name);
    }

    private static Structure structure(String name) {
        return name.contains("/") ? TestModels.structure(ModelReader.read(file(name))) : TestModels.structure(name);
    }

    static Stream<Arguments> plans() {
        List<Set<Role>> roles =
                List.of(Set.of(Role.EXPERTS), Set.of(Role.FFN), Set.of(Role.EXPERTS, Role.FFN, Role.HIDDEN));
        return FORMS.stream()
                .flatMap(form -> roles.stream()
                        .flatMap(role -> IntStream.range(0, SEEDS).mapToObj(seed -> Arguments.of(form, role, seed))));
    }

    @ParameterizedTest
    @MethodSource("plans")
    void expertsAndTheirChannelsCanBePruned(String form, Set<Role> roles, int seed) {
        Structure structure = structure(form);
        Plan plan = random(structure, roles, new Random(seed));
        Path written = write(structure, plan);

        Verifier.Verification found = Verifier.compare(
                new Verifier.Masked(structure, plan, Map.of()), written, TestModels.runtime(), TOLERANCE, seed);
        assertThat(found.relative()).isLessThan(TOLERANCE);
        assertThat(found.scale()).isGreaterThan(1e-3);
        assertThat(parameters(written))
                .as("what is counted under a plan is what is written")
                .isEqualTo(ParameterCount.of(structure).under(plan).parameters());
    }

    /** The other side of the comparison is made without the dimensions: by the bias of the router alone. */
    @ParameterizedTest
    @CsvSource({
        "fused-experts, 0",
        "unrolled-experts, 0",
        "unrolled-experts, 1",
        "forms/dense-experts, 1",
        "forms/tiled-experts, 0"
    })
    void removedExpertsAreThoseThatTheRouterNeverChooses(String form, int layer) {
        Structure structure = structure(form);
        int[] kept = {0, 2, 3};
        Path pruned = write(structure, new Plan("", Map.of("experts." + layer, kept), null, null));
        String bias = "layers." + layer + ".mlp.router.bias";
        float[] values = structure
                .analysis()
                .program()
                .initializers()
                .get(bias)
                .constant()
                .toFloats();
        for (int expert = 0; expert < values.length; expert++) {
            values[expert] = Arrays.binarySearch(kept, expert) < 0 ? -1e9f : values[expert];
        }
        Model dense = structure.analysis().program().model();
        Map<String, Tensor> changed = new LinkedHashMap<>(dense.graph().initializers());
        Tensor old = changed.get(bias);
        changed.put(bias, Tensor.ofFloats(old.dtype(), old.shape(), values));
        Path never = folder.resolve("never.onnx");
        ModelWriter.write(dense.withGraph(dense.graph().withInitializers(changed)), never, false);

        float[] expected = logits(never);
        float[] found = logits(pruned);
        for (int i = 0; i < expected.length; i++) {
            assertThat(found[i]).isCloseTo(expected[i], within(1e-4f));
        }
        assertThat(expected).isNotEqualTo(logits(file(form)));
    }

    @ParameterizedTest
    @ValueSource(strings = {"unrolled-experts", "forms/weighed-experts", "qwen3-moe-d"})
    void nothingIsLeftOfARemovedExpert(String form) {
        Structure structure = structure(form);
        Dimension experts = experts(structure).get(0);
        Plan plan = new Plan("", Map.of(experts.name(), new int[] {1, 2}), null, null);
        Model pruned = Slicer.slice(structure, plan.keep(structure), Map.of());

        Set<String> names = pruned.graph().initializers().keySet();
        assertThat(experts.units().own())
                .hasSize(experts.size())
                .allSatisfy(own -> assertThat(own).isNotEmpty());
        assertThat(experts.units().own().get(0)).noneMatch(value -> names.contains(value.name()));
        assertThat(experts.units().own().get(1))
                .filteredOn(value -> value.constant().dtype().isFloat() && value.producer() == null)
                .allMatch(value -> names.contains(value.name()));
        Set<String> needed = pruned.graph().needed();
        assertThat(pruned.graph().nodes())
                .allMatch(node -> node.outputs().stream().anyMatch(needed::contains));
    }

    @ParameterizedTest
    @ValueSource(strings = {"fused-experts", "unrolled-experts", "qwen3-moe-d", "mixtral-a"})
    void aPrunedModelCanBePrunedAgain(String form) {
        Structure once = structure(form);
        Plan first = random(once, Set.of(Role.EXPERTS), new Random(1));
        Structure again = TestModels.structure(ModelReader.read(write(once, first)));
        Plan second = random(again, Set.of(Role.EXPERTS, Role.FFN), new Random(2));

        Verifier.Verification found = Verifier.compare(
                new Verifier.Masked(again, second, Map.of()), write(again, second), TestModels.runtime(), TOLERANCE, 1);
        assertThat(found.relative()).isLessThan(TOLERANCE);
    }

    @Test
    void asManyExpertsStayAsTheRouterChooses() {
        Structure structure = structure("unrolled-experts");
        Budget budget = Budget.ofRatio(PruneSet.parse(List.of("experts")), 0.6);

        assertThat(experts(structure)).allMatch(dimension -> dimension.units().least() == 2);
        assertThatThrownBy(() -> Allocation.check(structure, budget))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("cannot be reached by pruning experts")
                .hasMessageContaining("experts.0 keeps at least 2: as many are chosen at node \"node_TopK_");
    }

    @Test
    void expertsInGroupsArePinned() {
        assertThat(experts(structure("forms/grouped-experts")))
                .isNotEmpty()
                .allMatch(dimension -> dimension.pin().startsWith("chosen in groups at node \"node_TopK_"));
    }

    /** The units of one expert go with it, so the target is met although both are pruned. */
    @ParameterizedTest
    @ValueSource(strings = {"unrolled-experts", "qwen3-moe-d", "fused-experts", "biased-experts"})
    void budgetsAreMetWithExpertsAndChannels(String form) {
        Structure structure = structure(form);
        for (Budget.Scope scope : Budget.Scope.values()) {
            Budget budget = Budget.ofRatio(PruneSet.parse(List.of("experts", "ffn", "heads")), 0.3)
                    .withScope(scope);
            Allocation found = Allocation.of(
                    structure,
                    new Magnitude(Magnitude.Norm.L2, Reduction.SUM, 1).score(structure, Log.NONE),
                    budget,
                    "",
                    Log.NONE);

            assertThat(found.ratio()).isBetween(0.29, 0.31);
            assertThat(parameters(write(structure, found.plan())))
                    .isEqualTo(found.after().parameters());
        }
    }

    private static long parameters(Path file) {
        return ParameterCount.of(TestModels.structure(ModelReader.read(file)))
                .dense()
                .parameters();
    }

    private Path write(Structure structure, Plan plan) {
        Model model = Slicer.slice(structure, plan.keep(structure), Map.of());
        GraphChecker.check(model, "prune");
        Path written = folder.resolve("pruned" + plan.describe().hashCode() + ".onnx");
        ModelWriter.write(model, written, false);
        return written;
    }

    private static float[] logits(Path file) {
        try (CausalLm decoder = CausalLm.open(TestModels.runtime(), file)) {
            return decoder.logits(new long[][] {{1, 17, 103, 8, 51}, {2, 9, 33, 200, 7}})
                    .toFloats();
        }
    }

    private static List<Dimension> experts(Structure structure) {
        return structure.dimensions().stream()
                .filter(dimension -> dimension.role() == Role.EXPERTS)
                .toList();
    }

    private static Plan random(Structure structure, Set<Role> roles, Random random) {
        Map<String, int[]> keep = new LinkedHashMap<>();
        for (Dimension dimension : structure.dimensions()) {
            if (dimension.isPrunable() && roles.contains(dimension.role())) {
                List<Integer> units = new ArrayList<>(
                        IntStream.range(0, dimension.size()).boxed().toList());
                Collections.shuffle(units, random);
                // A single number is not counted as a parameter.
                int least = Math.max(2, dimension.units().least());
                int count = least + random.nextInt(dimension.size() - least + 1);
                keep.put(
                        dimension.name(),
                        units.subList(0, count).stream()
                                .mapToInt(Integer::intValue)
                                .sorted()
                                .toArray());
            }
        }
        assertThat(keep).isNotEmpty();
        return new Plan("", keep, null, null);
    }
}
