// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.PassTester;
import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.plan.Allocation;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.PruneSet;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Sequences of tensors whose elements are known become the tensors; others stay. */
@Tag("ort")
class TensorSequencesTest {
    private static final int VOCABULARY = 9;

    /** A graph that looks rows of ten elements up, and whose logits are the sum of what {@code nodes} name y. */
    private static PassTester on(int opset, String nodes) {
        return PassTester.on("""
                ir_version 8
                opset "" %d
                main (int64[b,s] input_ids) => (float[b,s,1] logits)
                  <float[9,10] table = random(1)>
                  <int64[] zero = [0]>
                  <int64[] one = [1]>
                  <int64[] last = [-1]>
                  <int64[] four = [4]>
                  <int64[2] parts = [3, 7]>
                  <float[1] unit = [1]>
                {
                  x = Gather (table, input_ids)
                %s
                  logits = ReduceMax <axes = [-1], keepdims = 1> (y)
                }
                """.formatted(opset, nodes)).integersBelow(VOCABULARY);
    }

    private static PassTester.Result replaced(int opset, String nodes) {
        return on(opset, nodes).runs(TensorSequencesTest::replace);
    }

    private static Model replace(Model model) {
        return TensorSequences.replace(model, TestModels.runtime(), Log.NONE);
    }

    private static boolean hasSequences(Model model) {
        return model.graph().nodes().stream().anyMatch(node -> node.op().contains("Sequence"));
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                // The last of three parts is shorter, and is counted from the end.
                "s = SplitToSequence <axis = -1> (x, four)\n y = SequenceAt (s, last)",
                "s = SplitToSequence <axis = 2> (x, parts)\n y = SequenceAt (s, one)",
                "s = SplitToSequence <axis = 2, keepdims = 0> (x)\n a = SequenceAt (s, four)\n y = Mul (a, a)",
                "s = SplitToSequence <axis = 2> (x)\n a = SequenceAt (s, one)\n b = SequenceAt (s, last)\n y = Mul (a, b)",
                "s = SplitToSequence <axis = 2> (x, parts)\n y = ConcatFromSequence <axis = 2> (s)",
                "s = SequenceConstruct (x, x)\n a = ConcatFromSequence <axis = 1, new_axis = 1> (s)\n"
                        + " y = ReduceMean <axes = [1], keepdims = 0> (a)",
                "n = Neg (x)\n e = SequenceEmpty ()\n s = SequenceInsert (e, x)\n t = SequenceInsert (s, n, zero)\n"
                        + " u = SequenceErase (t, last)\n y = SequenceAt (u, zero)",
                "n = Neg (x)\n s = SequenceConstruct (x, n)\n c = SequenceLength (s)\n f = Cast <to = 1> (c)\n"
                        + " a = SequenceAt (s, one)\n y = Mul (a, f)"
            })
    void knownElementsTakeThePlaceOfTheSequence(String nodes) {
        for (int opset : new int[] {11, 13, 17}) {
            Model model = replaced(opset, nodes).computesTheSame().model();

            assertThat(hasSequences(model)).as("opset %d", opset).isFalse();
        }
    }

    /** Since opset 14. */
    @Test
    void copiesOfASequenceDisappearToo() {
        String nodes = "s = SplitToSequence <axis = 2> (x, parts)\n t = Identity (s)\n y = SequenceAt (t, one)";

        assertThat(hasSequences(replaced(17, nodes).computesTheSame().model())).isFalse();
    }

    /** The number of parts follows the number of tokens, or the index follows the tokens. */
    @ParameterizedTest
    @ValueSource(strings = {"s = SplitToSequence <axis = 1> (x, one)\n a = SequenceAt (s, zero)\n y = Add (x, a)", """
                s = SplitToSequence <axis = 2> (x, parts)
                m = ReduceMax <keepdims = 0> (input_ids)
                f = Cast <to = 1> (m)
                g = Mul (f, unit)
                h = ReduceMin <keepdims = 0> (g)
                i = Sign (h)
                k = Cast <to = 7> (i)
                y = SequenceAt (s, k)
                """})
    void whatVariesStays(String nodes) {
        assertThat(hasSequences(replaced(13, nodes).computesTheSame().model())).isTrue();
    }

    /** Chunks of a fused projection are the parts of a Split. */
    @ParameterizedTest
    @ValueSource(strings = {"gpt2-cb", "gated-attention", "mla", "hybrid-conv"})
    void theDimensionsAreThoseOfTheSameModelWithSplits(String name) {
        Model sequences = withSequences(ModelReader.read(TestModels.file(name)));
        assertThat(hasSequences(sequences)).isTrue();
        Structure found = TestModels.structure(replace(sequences));

        assertThat(described(found)).isEqualTo(described(TestModels.structure(name)));
        assertThat(found.stream().layers())
                .isEqualTo(TestModels.structure(name).stream().layers());
    }

    /** Nothing that is computed from a sequence can be followed, so there is no stream and no inner width. */
    @Test
    void aSequenceThatStaysIsTheReasonWhyNothingIsPruned() {
        Structure found = TestModels.structure(withBlocksInSequences("llama-gqa-d"));

        assertThat(found.stream().blocks()).isEmpty();
        assertThat(found.dimensions()).noneMatch(dimension -> dimension.role() == Role.FFN);
        assertThatThrownBy(() -> Allocation.candidates(found, budget()))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("has no residual stream, so its layers are not known and nothing can be pruned")
                .hasMessageContaining("(SequenceConstruct) makes is not a tensor, so it cannot be followed");
    }

    private static Budget budget() {
        return new Budget(
                PruneSet.standard(),
                Budget.Target.ratio(0.2),
                new Budget.Competition(),
                new Budget.Rounding(),
                new Budget.Protection());
    }

    /** The model in which each addition to the stream reads the block's result out of a sequence. */
    private static Model withBlocksInSequences(String name) {
        Structure structure = TestModels.structure(name);
        Map<String, String> read = new LinkedHashMap<>();
        structure.stream()
                .blocks()
                .forEach(block -> read.put(block.branch().name(), block.branch().name() + "_read"));
        Model model = structure.analysis().program().model();
        Map<String, Tensor> initializers = new LinkedHashMap<>(model.graph().initializers());
        initializers.put("sequence_index", Tensor.ofIndices(DType.INT64, new long[0], 0));
        List<Node> nodes = new ArrayList<>();
        for (Node node : model.graph().nodes()) {
            nodes.add(node.withInputs(node.inputs().stream()
                    .map(input -> read.getOrDefault(input, input))
                    .toList()));
            String result = node.output(0);
            if (read.containsKey(result)) {
                String sequence = result + "_sequence";
                nodes.add(Node.of(sequence, "SequenceConstruct", List.of(result), List.of(sequence), Map.of()));
                nodes.add(Node.of(
                        sequence + "_at",
                        "SequenceAt",
                        List.of(sequence, "sequence_index"),
                        List.of(read.get(result)),
                        Map.of()));
            }
        }
        return model.withGraph(model.graph().withNodes(nodes).withInitializers(initializers));
    }

    private static List<String> described(Structure structure) {
        return structure.dimensions().stream()
                .map(dimension -> dimension.name() + " " + dimension.size() + " "
                        + dimension.members().size() + " " + dimension.isPrunable())
                .toList();
    }

    /** Replaces each Split by a sequence. */
    private static Model withSequences(Model model) {
        Map<String, Tensor> initializers = new LinkedHashMap<>(model.graph().initializers());
        List<Node> nodes = new ArrayList<>();
        for (Node node : model.graph().nodes()) {
            if (!node.is("Split")) {
                nodes.add(node);
                continue;
            }
            String sequence = node.output(0) + "_sequence";
            String sizes = node.input(1);
            if (sizes.isEmpty()) {
                sizes = node.output(0) + "_size";
                initializers.put(sizes, Tensor.ofIndices(DType.INT64, new long[0], 24));
            }
            nodes.add(Node.of(
                    sequence,
                    "SplitToSequence",
                    List.of(node.input(0), sizes),
                    List.of(sequence),
                    Map.of("axis", node.attributes().getOrDefault("axis", new Attribute.Int(0)))));
            for (int i = 0; i < node.outputs().size(); i++) {
                String index = node.output(0) + "_index_" + i;
                initializers.put(index, Tensor.ofIndices(DType.INT64, new long[0], i));
                nodes.add(Node.of(index, "SequenceAt", List.of(sequence, index), List.of(node.output(i)), Map.of()));
            }
        }
        return model.withGraph(model.graph().withNodes(nodes).withInitializers(initializers));
    }
}
