// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Bytes;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Graphs;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program;
import io.onnxprune.ir.Tensor;
import io.onnxprune.onnx.ModelReader;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** A model that is endless or takes any amount of memory does not hold up the analysis of its shapes. */
@Tag("ort")
@Timeout(value = 60, unit = TimeUnit.SECONDS)
class TraceBudgetTest {
    private final Model model = ModelReader.read(TestModels.file("llama-gqa-d"));

    /** The model with nodes beside its own. */
    private Program with(Map<String, Tensor> constants, Node... more) {
        Graph graph = model.graph();
        List<Node> nodes = new ArrayList<>(List.of(more));
        nodes.addAll(graph.nodes());
        Map<String, Tensor> initializers = new LinkedHashMap<>(graph.initializers());
        initializers.putAll(constants);
        return Program.of(model.withGraph(new Graph(
                graph.name(), graph.inputs(), graph.outputs(), graph.values(), initializers, nodes, graph.rest())));
    }

    private static Tensor extents(long... values) {
        return Tensor.ofIndices(DType.INT64, new long[] {values.length}, values);
    }

    @Test
    void anEndlessLoop() {
        Graph body = new Graph(
                "body",
                List.of(
                        Graphs.value("i", DType.INT64),
                        Graphs.value("again", DType.BOOL),
                        Graphs.value("v", DType.FLOAT)),
                List.of(Graphs.value("still", DType.BOOL), Graphs.value("w", DType.FLOAT)),
                List.of(),
                Map.of(),
                List.of(
                        Node.of("", "Identity", List.of("again"), List.of("still"), Map.of()),
                        Node.of("", "Add", List.of("v", "v"), List.of("w"), Map.of())),
                new byte[0]);
        Node loop = Node.of(
                "endless",
                "Loop",
                List.of("", "yes", "start"),
                List.of("never"),
                Map.of("body", new Attribute.Body(body)));
        Tensor yes = Tensor.of(DType.BOOL, new long[0], Bytes.of(ByteBuffer.wrap(new byte[] {1})));
        Program program = with(Map.of("yes", yes, "start", Tensor.ofFloats(DType.FLOAT, new long[0], 1)), loop);

        assertThatThrownBy(() -> Trace.of(
                        program, TestModels.runtime(), Log.NONE, new Trace.Budget(Duration.ofMillis(100), 1L << 30)))
                .isInstanceOf(UserException.class)
                .hasMessageContainingAll("llama-gqa-d", "takes more than", "seconds, so it may be endless");
    }

    @Test
    void aConstantOfSixGigabytes() {
        Node fill = Node.of("fill", "ConstantOfShape", List.of("large"), List.of("filled"), Map.of());

        assertTooLarge(with(Map.of("large", extents(6L << 28)), fill), "fill");
    }

    @Test
    void anExpandToAMillionGigabytes() {
        Node expand = Node.of("expand", "Expand", List.of("one", "large"), List.of("filled"), Map.of());
        Tensor one = Tensor.ofFloats(DType.FLOAT, new long[] {1}, 1);

        assertTooLarge(with(Map.of("one", one, "large", extents(1L << 48)), expand), "expand");
    }

    private static void assertTooLarge(Program program, String node) {
        assertThatThrownBy(() -> Trace.of(program, TestModels.runtime(), Log.NONE))
                .isInstanceOf(UserException.class)
                .hasMessageContainingAll("llama-gqa-d", "takes more than 2.0 GiB, at node \"" + node + '"')
                .hasMessageNotContaining("--memory");
    }

    /** A limit holds for its session alone. */
    @Test
    void otherModelsAreTracedAfterwards() {
        aConstantOfSixGigabytes();

        Program program = Program.of(model);
        Trace trace = Trace.of(program, TestModels.runtime(), Log.NONE);

        assertThat(trace.isKnown(program.outputs().get(0))).isTrue();
    }
}
