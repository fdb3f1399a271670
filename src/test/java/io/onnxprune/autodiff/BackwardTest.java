// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Trace;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Bytes;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.GraphBuilder;
import io.onnxprune.ir.Graphs;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.Outputs;
import io.onnxprune.runtime.Session;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Which values are differentiated, and derivatives at kinks. */
@Tag("ort")
class BackwardTest {
    private static final Tensor TABLE = Tensor.ofFloats(DType.FLOAT, new long[] {3, 2}, 1, -2, 0, 4, 5, 6);
    private static final Tensor SCALE = Tensor.ofFloats(DType.FLOAT, new long[] {2}, 2, 3);

    @Test
    void anOperatorWithoutDerivativeOnThePathIsNamed() {
        Node strange = Node.of("strange one", "Det", List.of("square"), List.of("determinant"), Map.of());
        List<Node> nodes = List.of(
                Graphs.node("Gather", "x", "table", "tokens"),
                Graphs.node("MatMul", "square", "turned", "x"),
                strange,
                Graphs.node("Unsqueeze", "wide", "determinant", "axes"),
                Graphs.node("Mul", "logits", "x", "wide"));
        List<Node> all = new ArrayList<>(nodes);
        all.add(
                1,
                Node.of(
                        "",
                        "Transpose",
                        List.of("x"),
                        List.of("turned"),
                        Map.of("perm", new Attribute.Ints(List.of(0L, 2L, 1L)))));
        Program program = program(Map.of("axes", Graphs.longs(1, 2)), all);

        assertThatThrownBy(() -> gradients(program, program.ops(), List.of("table")))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("\"strange one\" (Det)");
    }

    @Test
    void anOperatorWithoutDerivativeBesideThePathDoesNotMatter() {
        // The determinant is computed from the table, but no requested gradient depends on it.
        Program program = program(
                Map.of("axes", Graphs.longs(1, 2)),
                List.of(
                        Graphs.node("Gather", "x", "table", "tokens"),
                        Node.of(
                                "",
                                "Transpose",
                                List.of("x"),
                                List.of("turned"),
                                Map.of("perm", new Attribute.Ints(List.of(0L, 2L, 1L)))),
                        Graphs.node("MatMul", "square", "turned", "x"),
                        Graphs.node("Det", "determinant", "square"),
                        Graphs.node("Unsqueeze", "wide", "determinant", "axes"),
                        Graphs.node("Mul", "scaled", "wide", "scale"),
                        Graphs.node("Add", "logits", "x", "scaled")));

        assertThat(gradients(program, program.ops(), List.of("scale"))).containsOnlyKeys("scale");
    }

    @Test
    void unreachedValuesAreAbsent() {
        Program program = program(
                Map.of(),
                List.of(
                        Graphs.node("Gather", "x", "table", "tokens"),
                        Graphs.node("Floor", "steps", "x"),
                        Graphs.node("Mul", "logits", "steps", "scale")));

        assertThat(gradients(program, program.ops(), List.of("scale", "table"))).containsOnlyKeys("scale");
    }

    @Test
    void aSegmentStartsAtInnerValues() {
        Program program = program(
                Map.of(),
                List.of(
                        Graphs.node("Gather", "x", "table", "tokens"),
                        Graphs.node("Mul", "y", "x", "scale"),
                        Graphs.node("Mul", "logits", "y", "y")));
        List<Op> segment = program.ops().subList(1, 3);

        // logits = (x·s)²: d/dx = 2xs², d/ds = Σ 2x²s, d/dy = 2xs
        Map<String, float[]> gradients = run(program, segment, List.of("x", "scale", "y"), 0, 1);
        assertThat(gradients.get("x")).containsExactly(8, -36, 0, 72);
        assertThat(gradients.get("y")).containsExactly(4, -12, 0, 24);
        assertThat(gradients.get("scale")).containsExactly(4, 120);
    }

    @Test
    void gradientsOfRepeatedRowsAreAdded() {
        Program program = program(
                Map.of(),
                List.of(Graphs.node("Gather", "x", "table", "tokens"), Graphs.node("Mul", "logits", "x", "scale")));

        assertThat(run(program, program.ops(), List.of("table"), 2, 0, 2, 2).get("table"))
                .containsExactly(2, 3, 0, 0, 6, 9);
    }

    @Test
    void gradientsOfHalfWeightsAreFloat32() {
        Map<String, Attribute> toFloat = Map.of("to", new Attribute.Int(DType.FLOAT.code()));
        Tensor half = Tensor.ofFloats(DType.FLOAT16, new long[] {2, 2}, 1, 2, 3, 4);
        Program program = program(
                Map.of("half", half),
                List.of(
                        Graphs.node("Gather", "x", "table", "tokens"),
                        Node.of(
                                "",
                                "Transpose",
                                List.of("half"),
                                List.of("turned"),
                                Map.of("perm", new Attribute.Ints(List.of(1L, 0L)))),
                        Node.of("", "Cast", List.of("turned"), List.of("wide"), toFloat),
                        Graphs.node("MatMul", "logits", "x", "wide")));

        assertThat(run(program, program.ops(), List.of("half"), 0, 2).get("half"))
                .containsExactly(6, 4, 6, 4);
    }

    @Test
    void requestedIntegersThatAreCastCountAsReal() {
        Map<String, Attribute> toFloat = Map.of("to", new Attribute.Int(DType.FLOAT.code()));
        Tensor numbers = Tensor.of(DType.INT8, new long[] {2, 2}, Bytes.of(ByteBuffer.wrap(new byte[] {1, -2, 3, 4})));
        Program program = program(
                Map.of("numbers", numbers),
                List.of(
                        Graphs.node("Gather", "x", "table", "tokens"),
                        Node.of("", "Cast", List.of("numbers"), List.of("wide"), toFloat),
                        Graphs.node("Mul", "weight", "wide", "scale"),
                        Graphs.node("MatMul", "logits", "x", "weight")));

        assertThat(run(program, program.ops(), List.of("numbers"), 0, 2).get("numbers"))
                .containsExactly(12, 18, 8, 12);
    }

    @ParameterizedTest
    @CsvSource({"Relu, 0, 0", "Abs, 0, 0", "LeakyRelu, 0, 0.01", "Max, 0, 0.5", "Min, 0, 0.5", "Clip, 0, 1", "Pow, 0, 0"
    })
    void derivativesAtKinksAreThoseOfPyTorch(String operator, float at, float expected) {
        Tensor start = Tensor.ofFloats(DType.FLOAT, new long[] {1}, at);
        Tensor zero = Tensor.ofFloats(DType.FLOAT, new long[0], operator.equals("Pow") ? 2 : 0);
        boolean notBroadcast = List.of("Relu", "Abs", "LeakyRelu").contains(operator);
        Program program = program(
                Map.of("start", start, "zero", zero),
                List.of(
                        Graphs.node("Gather", "x", "table", "tokens"),
                        notBroadcast
                                ? Graphs.node(operator, "y", "start")
                                : Graphs.node(operator, "y", "start", "zero"),
                        Graphs.node("Add", "logits", "x", "y")));

        // It was broadcast to two elements.
        assertThat(run(program, program.ops(), List.of("start"), 0).get("start"))
                .containsExactly(2 * expected);
    }

    private static Program program(Map<String, Tensor> more, List<Node> nodes) {
        Map<String, Tensor> initializers = new LinkedHashMap<>(Map.of("table", TABLE, "scale", SCALE));
        initializers.putAll(more);
        Graph graph = Graphs.graph(
                List.of(Graphs.value("tokens", DType.INT64, "batch", "length")),
                List.of(Graphs.floats("logits", "batch", "length", 2)),
                initializers,
                nodes.toArray(new Node[0]));
        return Program.of(Graphs.model(graph));
    }

    private static Map<String, String> gradients(Program program, List<Op> ops, List<String> wanted) {
        return gradients(
                program,
                ops,
                wanted,
                new GraphBuilder("g", GraphBuilder.names(program.model().graph())));
    }

    private static Map<String, String> gradients(
            Program program, List<Op> ops, List<String> wanted, GraphBuilder builder) {
        Value logits = program.outputs().get(0);
        Map<String, Value> values = new LinkedHashMap<>(program.initializers());
        program.ops().forEach(op -> op.outputs().forEach(value -> values.put(value.name(), value)));
        Trace trace = Trace.of(program, TestModels.runtime(), Log.NONE);
        String ones = builder.add("Sign", builder.add("Exp", "logits"));
        Map<String, String> result = new LinkedHashMap<>();
        Backward.append(
                        ops,
                        trace,
                        Map.of(logits, ones),
                        wanted.stream().map(values::get).toList(),
                        builder)
                .forEach((value, name) -> result.put(value.name(), name));
        return result;
    }

    /** The gradients of the sum of logits for one row of tokens. */
    private static Map<String, float[]> run(Program program, List<Op> ops, List<String> wanted, long... tokens) {
        GraphBuilder builder =
                new GraphBuilder("g", GraphBuilder.names(program.model().graph()));
        Map<String, String> gradients = gradients(program, ops, wanted, builder);
        Model model = GradientModel.extended(program.model(), builder, List.copyOf(gradients.values()));
        Map<String, HostTensor> feeds = Map.of("tokens", HostTensor.ofInt64(new long[] {1, tokens.length}, tokens));
        try (Session session = TestModels.runtime().open(model, false);
                Outputs outputs = session.run(feeds, gradients.values())) {
            Map<String, float[]> result = new LinkedHashMap<>();
            gradients.forEach((weight, name) -> {
                assertThat(outputs.dtype(name)).isEqualTo(DType.FLOAT);
                result.put(weight, outputs.tensor(name).toFloats());
            });
            return result;
        }
    }
}
