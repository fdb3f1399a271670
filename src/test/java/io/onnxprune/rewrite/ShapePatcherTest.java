// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.rewrite;

import static io.onnxprune.ir.Graphs.floats;
import static io.onnxprune.ir.Graphs.graph;
import static io.onnxprune.ir.Graphs.longs;
import static io.onnxprune.ir.Graphs.model;
import static io.onnxprune.ir.Graphs.node;
import static io.onnxprune.ir.Graphs.value;
import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import io.onnxprune.dims.Dim;
import io.onnxprune.dims.DimensionAnalysis.Member;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.GraphChecker;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.onnx.ModelWriter;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.Outputs;
import io.onnxprune.runtime.Session;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/**
 * Numbers that encode sizes, on graphs of one or two layers: hidden vectors pass through {@code up} to 4 heads of 6
 * channels, through the nodes of the test, and through {@code down} back.
 */
@Tag("ort")
class ShapePatcherTest {
    private static final int WIDTH = 5;
    private static final int HEADS = 4;
    private static final int CHANNELS = 6;
    private static final int[] KEPT = {0, 2, 3};

    private static final Map<String, Tensor> WEIGHTS = Map.of(
            "embedding", random(1, 11, WIDTH),
            "up", random(2, WIDTH, HEADS * CHANNELS),
            "down", random(3, HEADS * CHANNELS, WIDTH),
            "head", random(4, WIDTH, 11));

    @Test
    void aConstant() {
        Model pruned = pruned(
                Map.of("split", longs(0, 0, 4, 6), "merge", longs(0, 0, 24)),
                node("Reshape", "parts", "x", "split"),
                node("Relu", "active", "parts"),
                node("Reshape", "y", "active", "merge"));

        assertThat(operand(pruned, "parts", 1)).containsExactly(0, 0, 3, 6);
        assertThat(operand(pruned, "y", 1)).containsExactly(0, 0, 18);
    }

    /** One constant is the head count in one place and something else in another. */
    @Test
    void aConstantWithTwoMeanings() {
        Model pruned = pruned(
                Map.of("four", longs(4), "six", longs(6), "rest", longs(-1), "zeros", longs(0, 0)),
                concat("split", "zeros", "four", "six"),
                node("Reshape", "parts", "x", "split"),
                node("Expand", "same", "parts", "four_of_them"),
                Node.of("", "Constant", List.of(), List.of("four_of_them"), tensor(longs(1, 1, 1, 1))),
                concat("merge", "zeros", "rest"),
                node("Reshape", "y", "same", "merge"),
                node("Pow", "noise", "float_four", "float_four"),
                Node.of("", "Cast", List.of("four"), List.of("float_four"), Map.of("to", new Attribute.Int(1))));

        assertThat(pruned.graph().initializers().get("four").toLongs())
                .as("still read as a number")
                .containsExactly(4);
        assertThat(pruned.graph().initializers().get("zeros").toLongs()).containsExactly(0, 0);
    }

    /**
     * Exporters merge equal shape computations. Here one Concat serves two reshapes, of which one needs another number.
     */
    @Test
    void aConcatThatIsShared() {
        Model pruned = pruned(
                Map.of(
                        "zeros",
                        longs(0, 0),
                        "four",
                        longs(4),
                        "six",
                        longs(6),
                        "all",
                        longs(0, 0, -1),
                        "back",
                        twins()),
                concat("split", "zeros", "four", "six"),
                node("Reshape", "parts", "x", "split"),
                node("Relu", "active", "parts"),
                node("Reshape", "whole", "active", "all"),
                node("MatMul", "again", "whole", "back"),
                node("Reshape", "others", "again", "split"),
                node("Relu", "others_active", "others"),
                node("Reshape", "y", "others_active", "all"));

        assertThat(pruned.graph().nodes().stream().filter(node -> node.is("Concat")))
                .isNotEmpty();
    }

    /** The head count is the extent of the projection divided by the head size. */
    @Test
    void aQuotientOfAShape() {
        Model pruned = pruned(
                Map.of("zeros", longs(0, 0), "six", longs(6), "two", longs(2), "rest", longs(0, 0, -1)),
                node("Shape", "shape", "x"),
                node("Gather", "extent", "shape", "two"),
                node("Div", "count", "extent", "six"),
                concat("split", "zeros", "count", "six"),
                node("Reshape", "parts", "x", "split"),
                node("Relu", "active", "parts"),
                node("Reshape", "y", "active", "rest"));

        assertThat(pruned.graph().nodes().stream().filter(node -> node.is("Div")))
                .hasSize(1);
    }

    /** The head size is the extent divided by the number of heads, which is the number that changes. */
    @Test
    void aQuotientByANumberThatChanges() {
        Model pruned = pruned(
                Map.of("zeros", longs(0, 0), "four", longs(4), "two", longs(2), "rest", longs(0, 0, -1)),
                node("Shape", "shape", "x"),
                node("Gather", "extent", "shape", "two"),
                node("Div", "size", "extent", "four"),
                concat("split", "zeros", "four", "size"),
                node("Reshape", "parts", "x", "split"),
                node("Relu", "active", "parts"),
                node("Reshape", "y", "active", "rest"));

        Node divided = pruned.graph().nodes().stream()
                .filter(node -> node.is("Div") && pruned.graph().reads().contains(node.output(0)))
                .reduce((first, second) -> second)
                .orElseThrow();
        assertThat(pruned.graph().initializers().get(divided.input(1)).toLongs())
                .containsExactly(3);
    }

    /** The form of expand(-1, ...) by dynamo and TorchScript: Where(shape == -1, 1, shape). */
    @Test
    void anExpandByWhere() {
        Model pruned = pruned(
                Map.of(
                        "split", longs(0, 0, 4, 6),
                        "ask", longs(-1, -1, 4, -1),
                        "minus", longs(-1, -1, -1, -1),
                        "ones", longs(1, 1, 1, 1),
                        "bias", Tensor.ofFloats(DType.FLOAT, new long[] {1, 1, 1, 6}, 1, -2, 3, -4, 5, -6),
                        "rest", longs(0, 0, -1)),
                node("Reshape", "parts", "x", "split"),
                node("Equal", "open", "ask", "minus"),
                node("Where", "shape", "open", "ones", "ask"),
                node("Expand", "spread", "bias", "shape"),
                node("Add", "active", "parts", "spread"),
                node("Reshape", "y", "active", "rest"));

        assertThat(pruned.graph().initializers().get("bias").shape()).containsExactly(1, 1, 1, 6);
    }

    /** Two unequal parts of one axis, each selected by a Slice with constant bounds. */
    @Test
    void boundsOfASlice() {
        Model pruned = pruned(
                Map.of(
                        "split",
                        longs(0, 0, 4, 6),
                        "none",
                        longs(0),
                        "two",
                        longs(2),
                        "end",
                        longs(4),
                        "axis",
                        longs(2),
                        "rest",
                        longs(0, 0, -1)),
                node("Reshape", "parts", "x", "split"),
                node("Slice", "low", "parts", "none", "two", "axis"),
                node("Slice", "high", "parts", "two", "end", "axis"),
                node("Relu", "low_active", "low"),
                node("Tanh", "high_active", "high"),
                Node.of(
                        "",
                        "Concat",
                        List.of("low_active", "high_active"),
                        List.of("active"),
                        Map.of("axis", new Attribute.Int(2))),
                node("Reshape", "y", "active", "rest"));

        assertThat(operand(pruned, "low", 2)).hasSize(1);
    }

    /** Runs the graph with pruned units and with zeroed weights; the results must be equal. */
    private static Model pruned(Map<String, Tensor> constants, Node... middle) {
        Map<String, Tensor> initializers = new LinkedHashMap<>(WEIGHTS);
        initializers.putAll(constants);
        List<Node> nodes = new ArrayList<>(
                List.of(node("Gather", "hidden", "embedding", "input_ids"), node("MatMul", "x", "hidden", "up")));
        nodes.addAll(List.of(middle));
        nodes.add(node("MatMul", "result", "y", "down"));
        nodes.add(node("Add", "sum", "hidden", "result"));
        nodes.add(node("MatMul", "logits", "sum", "head"));
        List<ValueInfo> inputs = List.of(value("input_ids", DType.INT64, "batch", "sequence"));
        List<ValueInfo> outputs = List.of(floats("logits", "batch", "sequence", 11));
        Model model = model(graph(inputs, outputs, initializers, nodes.toArray(Node[]::new)));
        Structure structure = TestModels.structure(model);
        Dim.Atom atom = outermost(structure);
        Dim.Keep keep = candidate -> candidate == atom ? kept(candidate) : null;

        Model pruned = Slicer.slice(structure, keep, Map.of());
        GraphChecker.check(pruned, "slice");
        Tensor down = pruned.graph().initializers().get("down");
        assertThat(down.dim(0)).as("remaining channels").isLessThan(HEADS * CHANNELS);
        float[] expected = run(zeroed(structure, keep));
        float[] found = run(pruned);
        for (int i = 0; i < expected.length; i++) {
            assertThat(found[i]).isEqualTo(expected[i], org.assertj.core.api.Assertions.within(1e-4f));
        }
        return pruned;
    }

    /** The first atom of the rows of {@code down}: the heads. */
    private static Dim.Atom outermost(Structure structure) {
        Member rows = structure.dimensions().stream()
                .flatMap(dimension -> dimension.members().stream())
                .filter(member -> member.axis() == 0
                        && member.use().op().input(member.use().input()).name().equals("down"))
                .findFirst()
                .orElseThrow();
        Dim.Atom heads = rows.dim().atoms().iterator().next();
        assertThat(heads.pin()).isNull();
        return heads;
    }

    private static int[] kept(Dim.Atom atom) {
        return Arrays.stream(KEPT)
                .filter(index -> index < atom.size(0) - 1 || atom.size(0) == HEADS)
                .toArray();
    }

    private static Model zeroed(Structure structure, Dim.Keep keep) {
        Model model = structure.analysis().program().model();
        Map<String, Tensor> initializers = new LinkedHashMap<>(model.graph().initializers());
        structure.analysis().constantUses().forEach((use, dims) -> {
            String name = use.op().input(use.input()).name();
            Tensor tensor = initializers.get(name);
            if (tensor != null && tensor.dtype() == DType.FLOAT && tensor.rank() == 2) {
                initializers.put(name, zeroed(tensor, dims, keep));
            }
        });
        return model.withGraph(model.graph().withInitializers(initializers));
    }

    private static Tensor zeroed(Tensor tensor, Dim[] dims, Dim.Keep keep) {
        float[] values = tensor.toFloats();
        int[] rows = dims[0].kept(keep);
        int[] columns = dims[1].kept(keep);
        int width = (int) tensor.dim(1);
        float[] zeroed = new float[values.length];
        for (int row : rows) {
            for (int column : columns) {
                zeroed[row * width + column] = values[row * width + column];
            }
        }
        return Tensor.ofFloats(DType.FLOAT, tensor.shape(), zeroed);
    }

    private static float[] run(Model model) {
        byte[] bytes = ModelWriter.skeleton(model, tensor -> false);
        try (Session session = TestModels.runtime().open(bytes, Map.of(), false);
                Outputs outputs = session.run(
                        Map.of("input_ids", HostTensor.ofInt64(new long[] {2, 3}, 1, 7, 10, 3, 3, 0)),
                        List.of("logits"))) {
            return outputs.tensor("logits").toFloats();
        }
    }

    private static long[] operand(Model model, String output, int input) {
        Node consumer = model.graph().nodes().stream()
                .filter(node -> node.output(0).equals(output))
                .findFirst()
                .orElseThrow();
        return model.graph().initializers().get(consumer.input(input)).toLongs();
    }

    private static Node concat(String output, String... inputs) {
        return Node.of("", "Concat", List.of(inputs), List.of(output), Map.of("axis", new Attribute.Int(0)));
    }

    private static Map<String, Attribute> tensor(Tensor tensor) {
        return Map.of("value", new Attribute.Constant(tensor));
    }

    private static Tensor twins() {
        return random(5, HEADS * CHANNELS, HEADS * CHANNELS);
    }

    private static Tensor random(long seed, int rows, int columns) {
        Random random = new Random(seed);
        float[] values = new float[rows * columns];
        for (int i = 0; i < values.length; i++) {
            values[i] = (float) random.nextGaussian();
        }
        return Tensor.ofFloats(DType.FLOAT, new long[] {rows, columns}, values);
    }
}
