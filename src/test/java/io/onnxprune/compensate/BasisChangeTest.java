// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Role;
import io.onnxprune.dims.Structure;
import io.onnxprune.eval.CausalLm;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.BasisMembers;
import io.onnxprune.plan.BasisMembers.Member;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.plan.Plan;
import io.onnxprune.rewrite.PrunedState;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

@Tag("ort")
class BasisChangeTest {
    @TempDir
    private Path folder;

    /** Models with dimensions of heads whose basis can change: in all layouts of queries, keys and values, with and without biases. */
    static Stream<String> models() {
        return Stream.of(
                "attention-sinks",
                "cross-attention",
                "encoder-states",
                "gemma2-d",
                "glm-d",
                "gpt-neox-d",
                "gpt2-cb",
                "gpt2-g-merged",
                "llama-gqa-b",
                "llama-gqa-d",
                "llama-mha-b23",
                "mla",
                "opt-c",
                "opt-f-a-bert",
                "phi3-d",
                "qwen3-moe-d",
                "shared-kv",
                "stories-llama");
    }

    private Map<Dimension, List<Member>> changes(Structure structure) {
        Map<Dimension, List<Member>> changes = new LinkedHashMap<>();
        BasisChange change = change(structure);
        for (Dimension dimension : structure.dimensions()) {
            boolean ofHeads = dimension.role() == Role.V_HEAD_DIM || dimension.role() == Role.QK_HEAD_DIM;
            BasisMembers members = BasisMembers.of(structure.analysis(), dimension, LinearLayers.of(structure));
            if (ofHeads
                    && dimension.isPrunable()
                    && members.obstacle().isEmpty()
                    && change.obstacle(members.members()).isEmpty()) {
                changes.put(dimension, members.members());
            }
        }
        return changes;
    }

    private BasisChange change(Structure structure) {
        PrunedState whole = PrunedState.whole(structure, Plan.keepAll(""));
        return new BasisChange(Runs.model(whole, folder, Log.NONE), false, 0.01);
    }

    private Map<Value, Tensor> changed(Structure structure, Map<Dimension, List<Member>> changes) {
        return change(structure).of(changes);
    }

    @ParameterizedTest
    @MethodSource("models")
    void theModelComputesTheSame(String name) {
        Structure structure = TestModels.structure(name);
        Map<Dimension, List<Member>> changes = changes(structure);
        assertThat(changes).isNotEmpty();

        Map<Value, Tensor> changed = changed(structure, changes);

        Set<Value> members = changes.values().stream()
                .flatMap(List::stream)
                .map(Member::constant)
                .collect(Collectors.toSet());
        assertThat(changed.keySet()).isEqualTo(members);
        changed.forEach((value, tensor) ->
                assertThat(tensor.toFloats()).isNotEqualTo(value.constant().toFloats()));
        PrunedState state = PrunedState.of(structure, Plan.keepAll(""), changed);
        float[] before = logits(structure.analysis().program().model());
        float[] after = logits(state.model());
        double scale = 0;
        double difference = 0;
        for (int i = 0; i < before.length; i++) {
            scale = Math.max(scale, Math.abs(before[i]));
            difference = Math.max(difference, Math.abs(before[i] - after[i]));
        }
        assertThat(difference).isLessThan(1e-5 * scale);
    }

    /** The first units carry the most: without the last half of them, the error is smaller than without the first half. */
    @Test
    void theFirstUnitsCarryTheMost() {
        Structure structure = TestModels.structure("stories-llama");
        Map<Dimension, List<Member>> changes = changes(structure);
        Map<Value, Tensor> changed = changed(structure, changes);
        float[] dense = logits(structure.analysis().program().model());

        double plain = error(structure, changes, Map.of(), true, dense);
        double first = error(structure, changes, changed, true, dense);
        double last = error(structure, changes, changed, false, dense);

        assertThat(first).isLessThan(plain).isLessThan(last / 2);
    }

    private static double error(
            Structure structure,
            Map<Dimension, List<Member>> changes,
            Map<Value, Tensor> updates,
            boolean first,
            float[] dense) {
        Map<String, int[]> keep = new LinkedHashMap<>();
        changes.keySet()
                .forEach(dimension -> keep.put(
                        dimension.name(),
                        IntStream.range(0, dimension.size() / 2)
                                .map(unit -> first ? unit : unit + dimension.size() / 2)
                                .toArray()));
        Plan all = Plan.keepAll("");
        float[] found = logits(PrunedState.of(structure, new Plan("", keep, all.layers(), all.blocks()), updates)
                .model());
        double sum = 0;
        for (int i = 0; i < found.length; i++) {
            sum += Math.pow(found[i] - dense[i], 2);
        }
        return sum;
    }

    private static float[] logits(Model model) {
        long[][] tokens = Runs.rows(4).toArray(long[][]::new);
        try (CausalLm lm = CausalLm.of(TestModels.runtime().open(model, true), model.graph())) {
            return lm.logits(tokens).toFloats();
        }
    }

    /** What is in the way of a change of basis, with the operator that is. */
    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "stories-llama | QK_HEAD_DIM | node \"/model/layers.0/self_attn/Mul\" (Mul) treats its units one by one",
                "llama-mha-b23 | QK_HEAD_DIM | node \"node_RotaryEmbedding_372\" (RotaryEmbedding) treats its units one by one",
                "gated-attention | V_HEAD_DIM | node \"node_Sigmoid_92\" (Sigmoid) treats its units one by one",
                "gpt2-cb | QK_HEAD_DIM | node \"/m/transformer/h.0/attn/MatMul\" (MatMul) multiplies its units with others in the same basis",
                "int4-experts | FFN | node \"node_QMoE_66\" (com.microsoft.QMoE) has quantised weights",
                "opt-c | FFN | node \"/m/decoder/layers.0/activation_fn/Relu\" (Relu) treats its units one by one",
                "qwen3-moe-d | QK_HEAD_DIM | node \"/model/layers.0/self_attn/q_norm/Pow\" (Pow) treats its units one by one",
            })
    void anOperatorThatTreatsUnitsOneByOneIsInTheWay(String name, Role role, String reason) {
        Structure structure = TestModels.structure(name);
        Dimension dimension = structure.dimensions().stream()
                .filter(each -> each.role() == role)
                .findFirst()
                .orElseThrow();

        assertThat(BasisMembers.of(structure.analysis(), dimension, LinearLayers.of(structure))
                        .obstacle())
                .contains(reason);
    }
}
