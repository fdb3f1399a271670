// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import io.onnxprune.dims.DimensionAnalysis.Member;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.onnx.ModelReader;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.function.UnaryOperator;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The result does not depend on names or on the order of nodes. */
@Tag("ort")
class InvarianceTest {
    @ParameterizedTest
    @ValueSource(strings = {"llama-gqa-d", "gpt2-cb", "falcon-mqa-d", "llama-g16-e-fp32", "gpt2-g-merged"})
    void namesDoNotMatter(String name) {
        Model model = ModelReader.read(TestModels.file(name));
        Set<String> interfaceNames = new HashSet<>();
        model.graph().inputs().forEach(input -> interfaceNames.add(input.name()));
        model.graph().outputs().forEach(output -> interfaceNames.add(output.name()));
        Map<String, String> made = new HashMap<>();
        Random random = new Random(name.hashCode());
        UnaryOperator<String> rename = old -> old.isEmpty() || interfaceNames.contains(old)
                ? old
                : made.computeIfAbsent(old, key -> "v" + Long.toHexString(random.nextLong()));
        Model renamed = model.withGraph(renamed(model.graph(), rename));

        Structure found = TestModels.structure(renamed);
        assertThat(found.stream().blocks())
                .hasSameSizeAs(TestModels.structure(name).stream().blocks());
        assertThat(described(found, UnaryOperator.identity())).isEqualTo(described(TestModels.structure(name), rename));
    }

    @ParameterizedTest
    @ValueSource(strings = {"llama-gqa-d", "llama-gqa-b", "bloom-d", "phi3-d", "qwen3-moe-d"})
    void theOrderOfNodesDoesNotMatter(String name) {
        Model model = ModelReader.read(TestModels.file(name));
        Random random = new Random(name.hashCode());
        Model shuffled = model.withGraph(model.graph().withNodes(shuffled(model.graph(), random)));
        assertThat(shuffled.graph().nodes()).isNotEqualTo(model.graph().nodes());

        assertThat(described(TestModels.structure(shuffled), UnaryOperator.identity()))
                .containsExactlyInAnyOrderElementsOf(described(TestModels.structure(name), UnaryOperator.identity()));
    }

    /** Role, layer, size, whether it is pinned, and the constants that have it, without names of nodes. */
    private static List<String> described(Structure structure, UnaryOperator<String> rename) {
        return structure.dimensions().stream()
                .map(dimension -> dimension.role() + " layer " + dimension.layer() + " size " + dimension.size() + " "
                        + dimension.isPrunable() + " "
                        + dimension.members().stream()
                                .map(member -> constant(member, rename) + " axis " + member.axis())
                                .sorted()
                                .toList())
                .toList();
    }

    private static String constant(Member member, UnaryOperator<String> rename) {
        return rename.apply(member.use().op().input(member.use().input()).name());
    }

    private static Graph renamed(Graph graph, UnaryOperator<String> rename) {
        Map<String, Tensor> initializers = new LinkedHashMap<>();
        graph.initializers().forEach((name, tensor) -> initializers.put(rename.apply(name), tensor));
        List<Node> nodes = new ArrayList<>();
        for (Node node : graph.nodes()) {
            Map<String, Attribute> attributes = new LinkedHashMap<>(node.attributes());
            attributes.replaceAll((key, attribute) -> attribute instanceof Attribute.Body body
                    ? new Attribute.Body(renamed(body.graph(), rename))
                    : attribute);
            nodes.add(new Node(
                    rename.apply("node " + node.name()),
                    node.domain(),
                    node.op(),
                    node.inputs().stream().map(rename).toList(),
                    node.outputs().stream().map(rename).toList(),
                    attributes,
                    node.rest()));
        }
        return new Graph(
                graph.name(),
                renamed(graph.inputs(), rename),
                renamed(graph.outputs(), rename),
                renamed(graph.values(), rename),
                initializers,
                nodes,
                graph.rest());
    }

    private static List<ValueInfo> renamed(List<ValueInfo> infos, UnaryOperator<String> rename) {
        return infos.stream()
                .map(info -> info.withName(rename.apply(info.name())))
                .toList();
    }

    /** Another order in which every node still comes after the producers of its inputs. */
    private static List<Node> shuffled(Graph graph, Random random) {
        Set<String> made = new HashSet<>();
        graph.nodes().forEach(node -> made.addAll(node.outputs()));
        Set<String> defined = new HashSet<>();
        List<Node> waiting = new ArrayList<>(graph.nodes());
        List<Node> order = new ArrayList<>();
        while (!waiting.isEmpty()) {
            List<Node> ready = waiting.stream()
                    .filter(node -> Stream.concat(node.inputs().stream(), node.reads().stream())
                            .noneMatch(input -> made.contains(input) && !defined.contains(input) && !input.isEmpty()))
                    .toList();
            Node next = ready.get(random.nextInt(ready.size()));
            order.add(next);
            defined.addAll(next.outputs());
            waiting.remove(next);
        }
        return order;
    }
}
