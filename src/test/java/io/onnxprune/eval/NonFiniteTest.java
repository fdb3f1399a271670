// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graphs;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.runtime.Session;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** A failure because of non-finite values names the row and the first node that has them. */
@Tag("ort")
class NonFiniteTest {
    private static final long[] ROW = {1, 5, 9, 7, 3, 2, 8};

    /** A half-precision model: an embedding table of one number for each token, scaled, and broadcast to two logits. */
    private static Model scaled(float factor, float... table) {
        Tensor tokens = Tensor.ofFloats(DType.FLOAT16, new long[] {table.length, 1}, table);
        return Graphs.model(Graphs.graph(
                List.of(Graphs.value("input_ids", DType.INT64, "batch", "sequence")),
                List.of(Graphs.value("logits", DType.FLOAT16, "batch", "sequence", table.length)),
                Map.of(
                        "table", tokens,
                        "factor", Tensor.ofFloats(DType.FLOAT16, new long[0], factor),
                        "mask", Tensor.ofFloats(DType.FLOAT16, new long[] {1, table.length}, new float[table.length])),
                Node.of("look-up", "Gather", List.of("table", "input_ids"), List.of("embedded"), Map.of()),
                Node.of("scale", "Mul", List.of("embedded", "factor"), List.of("scaled"), Map.of()),
                Node.of("unfold", "Add", List.of("scaled", "mask"), List.of("logits"), Map.of())));
    }

    private static boolean hasMoreColumns(Tensor tensor) {
        return tensor != null && tensor.dim(0) < tensor.dim(1);
    }

    private static String origin(Model model, long... row) {
        return NonFinite.origin(model, TestModels.runtime(), row);
    }

    @ParameterizedTest
    @ValueSource(floats = {Float.NaN, Float.POSITIVE_INFINITY, Float.NEGATIVE_INFINITY})
    void aWeightInTheMiddleIsNamed(float value) {
        Model model = ModelReader.read(TestModels.file("stories-llama"));
        // Not one of the attention's square matrices, because the runtime's softmax turns NaN into a number.
        List<Node> linearLayers = model.graph().nodes().stream()
                .filter(node -> node.is("MatMul")
                        && hasMoreColumns(
                                model.graph().initializers().get(node.inputs().get(1))))
                .toList();
        Node middle = linearLayers.get(linearLayers.size() / 2);
        String name = middle.inputs().get(1);
        Map<String, Tensor> initializers = new LinkedHashMap<>(model.graph().initializers());
        float[] values = initializers.get(name).toFloats();
        values[70] = value;
        initializers.put(
                name, Tensor.ofFloats(DType.FLOAT, initializers.get(name).shape(), values));

        assertThat(origin(model.withGraph(model.graph().withInitializers(initializers)), ROW))
                .isEqualTo(", from node " + middle.label() + " on, whose weight \"" + name
                        + "\" holds NaN or an infinite number; repair that weight, or export the model again");
    }

    @Test
    void overflowOfHalfPrecisionIsReported() {
        assertThat(origin(scaled(1000, 1, 2, 100), 0, 1, 2))
                .isEqualTo(", from node \"scale\" (Mul) on, where numbers overflow half precision; export the model in"
                        + " float32");
    }

    @Test
    void noNodeIsNamedWhenNoneIsFound() {
        assertThat(origin(scaled(1000, 1, 2, 100), 0, 1))
                .isEqualTo("; its weights or its precision overflow, so try it in float32");
    }

    @Test
    void perplexityNamesTheRow() {
        List<long[]> rows =
                List.of(new long[] {0, 1, 0}, new long[] {1, 0, 1}, new long[] {1, 2, 0}, new long[] {1, 1});
        Model model = scaled(1000, 1, 2, 100);
        try (Session session = TestModels.runtime().open(model, true)) {
            assertThatThrownBy(() -> Perplexity.measure(CausalLm.of(session, model.graph()), rows, Log.NONE))
                    .isInstanceOf(UserException.class)
                    .hasMessageStartingWith("the model's logits are not finite numbers on row 3 of 4 to measure"
                            + " perplexity on (beginning 1, 2, 0)");
        }
    }
}
