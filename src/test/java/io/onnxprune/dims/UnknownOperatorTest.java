// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.onnx.ModelReader;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** An operator without a rule pins the dimensions of its operands and results, and nothing else. */
@Tag("ort")
class UnknownOperatorTest {
    private static final String MODEL = "llama-gqa-b";
    private static final String REASON = "operator without a rule at node \"strange\" (com.microsoft.Trilu)";

    @Test
    void theChannelsThatItTouchesArePinnedWithItsName() {
        Structure before = TestModels.structure(MODEL);
        Dim.Atom channels = named(before, "ffn.1").atom();
        String activation = before.analysis().program().ops().stream()
                .filter(op -> op.node().is("Sigmoid"))
                .filter(op -> before.analysis().dims(op.output(0))[2].atoms().contains(channels))
                .findFirst()
                .orElseThrow()
                .output(0)
                .name();
        Structure after = TestModels.structure(withStrangeNodeAfter(activation));

        assertThat(named(after, "ffn.1").pin()).isEqualTo(REASON);
        assertThat(after.dimensions()).zipSatisfy(before.dimensions(), (found, expected) -> {
            assertThat(found.name()).isEqualTo(expected.name());
            assertThat(found.size()).isEqualTo(expected.size());
            assertThat(found.pin()).isEqualTo(found.name().equals("ffn.1") ? REASON : expected.pin());
        });
    }

    @Test
    void onTheResidualStreamItPinsTheWidthButNoChannels() {
        Structure before = TestModels.structure(MODEL);
        String sum = before.stream().blocks().get(1).add().output(0).name();
        Structure after = TestModels.structure(withStrangeNodeAfter(sum));

        assertThat(after.dimensions().stream().filter(dimension -> dimension.role() == Role.HIDDEN))
                .isNotEmpty()
                .allSatisfy(hidden -> assertThat(hidden.pin()).isEqualTo(REASON));
        // No weight of the stream's width is prunable under another role.
        assertThat(after.dimensions().stream().filter(dimension -> dimension.size() == 64))
                .noneMatch(Dimension::isPrunable);
        assertThat(after.dimensions().stream().filter(dimension -> dimension.size() == 96))
                .hasSize(3)
                .allMatch(dimension -> dimension.role() == Role.FFN && dimension.isPrunable());
    }

    private static Dimension named(Structure structure, String name) {
        return structure.dimensions().stream()
                .filter(dimension -> dimension.name().equals(name))
                .findFirst()
                .orElseThrow();
    }

    /** A model in which every consumer of {@code value} gets it through an unknown operator of ONNX Runtime. */
    private static Model withStrangeNodeAfter(String value) {
        Model model = ModelReader.read(TestModels.file(MODEL));
        List<Node> nodes = new ArrayList<>();
        for (Node node : model.graph().nodes()) {
            nodes.add(node.withInputs(node.inputs().stream()
                    .map(input -> input.equals(value) ? "strange_out" : input)
                    .toList()));
            if (node.outputs().contains(value)) {
                List<String> outputs = List.of("strange_out");
                nodes.add(
                        new Node("strange", "com.microsoft", "Trilu", List.of(value), outputs, Map.of(), new byte[0]));
            }
        }
        Graph graph = model.graph().withNodes(nodes);
        Map<String, Long> opsets = new LinkedHashMap<>(model.opsets());
        opsets.put("com.microsoft", 1L);
        return new Model(
                model.irVersion(), opsets, graph, model.metadata(), model.externalData(), model.source(), model.rest());
    }
}
