// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.rewrite;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.RecordedLog;
import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.GraphChecker;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.plan.Allocation;
import io.onnxprune.plan.BlockRemoval;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.plan.RandomImportance;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** What is planned can be done: a dry run and a run agree about layers. */
@Tag("ort")
class BlockRemovalTest {
    static List<String> models() {
        return TestModels.allNames();
    }

    @ParameterizedTest
    @MethodSource("models")
    void everyAllocationCanBeRewritten(String name) {
        Structure structure = TestModels.structure(name);
        Random random = new Random(name.hashCode());
        for (String word : List.of("layers", "blocks")) {
            for (int round = 0; round < 4; round++) {
                Budget budget = budget(word, 0.1 + 0.8 * random.nextDouble());
                Plan plan;
                try {
                    plan = Allocation.of(
                                    structure,
                                    new RandomImportance(round).score(structure, Log.NONE),
                                    budget,
                                    "",
                                    Log.NONE)
                            .plan();
                } catch (UserException e) {
                    continue;
                }
                Model model = structure.analysis().program().model();
                GraphChecker.check(BlockRemover.remove(structure, plan, model), "prune");
            }
        }
    }

    private static Budget budget(String word, double ratio) {
        return new Budget(
                PruneSet.parse(List.of(word)),
                Budget.Target.ratio(ratio),
                new Budget.Competition(),
                new Budget.Rounding(),
                new Budget.Protection());
    }

    /** The last layer reads the keys and values of the first, which stay with their cache when the first goes. */
    @Test
    void sharedKeysAndValuesStay() {
        Structure structure = TestModels.structure("shared-kv");
        Model model = structure.analysis().program().model();
        Model without = BlockRemover.remove(structure, new Plan("", Map.of(), new int[] {1, 2}, null), model);
        assertThat(outputs(without))
                .containsExactly("logits", "present.0.key", "present.0.value", "present.1.key", "present.1.value");

        without = BlockRemover.remove(structure, new Plan("", Map.of(), new int[] {1}, null), model);
        assertThat(outputs(without)).containsExactly("logits", "present.0.key", "present.0.value");
    }

    /** A graph output that a block computes by more than a copy goes with the block. */
    @Test
    void outputsThatAreComputedFromABlockGoWithIt() {
        Structure structure = TestModels.structure(withTransposedCaches("llama-gqa-d"));
        Model model = structure.analysis().program().model();
        Model without = BlockRemover.remove(structure, new Plan("", Map.of(), new int[] {0, 2}, null), model);

        assertThat(outputs(without))
                .containsExactly("logits", "present.0.key", "present.0.value", "present.1.key", "present.1.value");
    }

    /** What the final layers read of a block keeps the block, and the reason is known before a plan is made. */
    @Test
    void aBlockThatSomethingElseReadsIsNoCandidate() {
        Structure structure = TestModels.structure(withReaderOfBlock("llama-gqa-d", 3));
        BlockRemoval removal = BlockRemoval.of(structure);
        assertThat(removal.obstacle(3)).contains("is read by node \"reader\" (Mul), which stays");
        assertThat(removal.obstacle(2)).isNull();
        RecordedLog log = new RecordedLog();
        Plan plan = Allocation.of(
                        structure, new RandomImportance(1).score(structure, Log.NONE), budget("layers", 0.4), "", log)
                .plan();

        assertThat(plan.layers()).containsExactly(1);
        assertThat(log.warnings())
                .singleElement()
                .asString()
                .startsWith("not every layer can be pruned: blocks.3 of layers.1 is needed: its node ");
        assertThatThrownBy(() -> BlockRemover.remove(
                        structure,
                        new Plan("", Map.of(), new int[] {0, 2}, null),
                        structure.analysis().program().model()))
                .isInstanceOf(UserException.class)
                .hasMessageStartingWith("layer 1 cannot be removed: its feed-forward block is needed: its node ");
    }

    @Test
    void whatOnlyRemovedBlocksContainIsDropped() {
        Structure structure = TestModels.structure("shared-kv");
        BlockRemoval removal = BlockRemoval.of(structure);
        BitSet first = new BitSet();
        first.set(0);
        BitSet both = new BitSet();
        both.set(0);
        both.set(6);

        assertThat(removal.droppedOutputs(first)).isEmpty();
        assertThat(removal.droppedOutputs(both)).hasSize(2);
        assertThat(removal.dropped(both))
                .hasSizeGreaterThan(removal.dropped(first).size());
    }

    private static List<String> outputs(Model model) {
        return model.graph().outputs().stream().map(ValueInfo::name).toList();
    }

    /** The model with each cache output behind two transposes. */
    private static Model withTransposedCaches(String name) {
        Model model = ModelReader.read(TestModels.file(name));
        List<Node> nodes = new ArrayList<>();
        List<String> caches = outputs(model).stream()
                .filter(output -> output.startsWith("present"))
                .toList();
        for (Node node : model.graph().nodes()) {
            List<String> inputs = node.inputs().stream()
                    .map(input -> caches.contains(input) ? input + "_inner" : input)
                    .toList();
            List<String> results = node.outputs().stream()
                    .map(output -> caches.contains(output) ? output + "_inner" : output)
                    .toList();
            nodes.add(node.withInputs(inputs).withOutputs(results));
        }
        for (String cache : caches) {
            nodes.add(
                    Node.of(cache + "_away", "Transpose", List.of(cache + "_inner"), List.of(cache + "_t"), Map.of()));
            nodes.add(Node.of(cache + "_back", "Transpose", List.of(cache + "_t"), List.of(cache), Map.of()));
        }
        return model.withGraph(model.graph().withNodes(nodes));
    }

    /** The model in which the output of a block also scales the last hidden states. */
    private static Model withReaderOfBlock(String name, int index) {
        Structure structure = TestModels.structure(name);
        var blocks = structure.stream().blocks();
        String branch = blocks.get(index).branch().name();
        String last = blocks.get(blocks.size() - 1).add().output(0).name();
        Graph graph = structure.analysis().program().model().graph();
        List<Node> nodes = new ArrayList<>();
        for (Node node : graph.nodes()) {
            nodes.add(node.withInputs(node.inputs().stream()
                    .map(input -> input.equals(last) ? "reader_out" : input)
                    .toList()));
            if (node.outputs().contains(last)) {
                nodes.add(Node.of("reader", "Mul", List.of(last, branch), List.of("reader_out"), Map.of()));
            }
        }
        return structure.analysis().program().model().withGraph(graph.withNodes(nodes));
    }
}
