// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Graphs;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.ir.ValueInfo.Extent;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.onnx.ModelWriter;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.UnaryOperator;

/** Test models with another interface. Each computes the same network. */
final class ModelForms {
    /** A model of a fused attention, and one of standard operators without caches. */
    static final String FUSED = "llama-g16-e-fp32";

    static final String PLAIN = "opt-c";
    private static final String EMBEDDINGS = "inputs_embeds";

    private ModelForms() {}

    static Path write(Model model, Path file) throws IOException {
        Files.createDirectories(file.getParent());
        return Files.write(file, ModelWriter.skeleton(model, tensor -> false));
    }

    static Model read(String name) {
        return ModelReader.read(Cli.testModel(name));
    }

    /** A model that takes embeddings. */
    static Model ofEmbeddings(String name) {
        Model model = read(name);
        Node lookUp = embedding(model);
        List<Node> nodes = new ArrayList<>(model.graph().nodes());
        nodes.remove(lookUp);
        nodes.replaceAll(node -> replaced(node, lookUp.outputs().get(0), EMBEDDINGS));
        long width = table(model, lookUp).dim(1);
        List<ValueInfo> inputs = new ArrayList<>(model.graph().inputs());
        inputs.replaceAll(input -> input.name().equals("input_ids")
                ? Graphs.floats(EMBEDDINGS, "batch_size", "sequence_length", width)
                : input);
        Map<String, Tensor> weights = new LinkedHashMap<>(model.graph().initializers());
        weights.remove(lookUp.input(0));
        return model.withGraph(model.graph()
                .withInitializers(weights)
                .withNodes(nodes)
                .withInterface(inputs, model.graph().outputs()));
    }

    /** The model that gives the embeddings for {@link #ofEmbeddings}. */
    static Model embeddings(String name) {
        Model model = read(name);
        Node lookUp = embedding(model);
        Tensor table = table(model, lookUp);
        return Graphs.model(Graphs.graph(
                List.of(Graphs.value("input_ids", DType.INT64, "batch_size", "sequence_length")),
                List.of(Graphs.floats(EMBEDDINGS, "batch_size", "sequence_length", table.dim(1))),
                Map.of(lookUp.input(0), table),
                lookUp.withOutputs(List.of(EMBEDDINGS))));
    }

    private static Node embedding(Model model) {
        return model.graph().nodes().stream()
                .filter(node -> node.is("Gather") && node.input(1).equals("input_ids"))
                .findFirst()
                .orElseThrow();
    }

    private static Tensor table(Model model, Node lookUp) {
        return model.graph().initializers().get(lookUp.input(0));
    }

    /** A model whose inputs have these extents in place of symbols. */
    static Model withExtents(Model model, Map<String, Long> extents) {
        return model.withGraph(model.graph()
                .withValues(List.of())
                .withInterface(
                        declared(model.graph().inputs(), extents),
                        declared(model.graph().outputs(), extents)));
    }

    private static List<ValueInfo> declared(List<ValueInfo> values, Map<String, Long> extents) {
        UnaryOperator<Extent> fixed =
                extent -> extents.containsKey(extent.symbol()) ? Extent.of(extents.get(extent.symbol())) : extent;
        return values.stream()
                .map(value -> value.withShape(value.shape().stream().map(fixed).toList()))
                .toList();
    }

    /** A model whose output is what its last product multiplies: an encoder without a vocabulary. */
    static Model encoder(String name) {
        Model model = read(name);
        List<Node> nodes = new ArrayList<>(model.graph().nodes());
        Node head = nodes.stream()
                .filter(node -> node.outputs().contains("logits"))
                .findFirst()
                .orElseThrow();
        nodes.remove(head);
        nodes.add(Graphs.node("Identity", "last_hidden_state", head.input(0)));
        long width = model.graph().initializers().get(head.input(1)).dim(0);
        Graph graph = model.graph().withNodes(nodes);
        return model.withGraph(graph.withInterface(
                graph.inputs(), List.of(Graphs.floats("last_hidden_state", "batch", "sequence", width))));
    }

    /** A model whose logits have the means of another input, {@code context [batch, positions, 320]}, added. */
    static Model withContext(String name) {
        Model model = read(name);
        List<Node> nodes = new ArrayList<>(model.graph().nodes());
        nodes.replaceAll(node -> node.outputs().contains("logits") ? node.withOutputs(List.of("own_logits")) : node);
        nodes.add(Node.of(
                "",
                "ReduceMean",
                List.of("context"),
                List.of("mean"),
                Map.of("axes", new Attribute.Ints(List.of(1L)), "keepdims", new Attribute.Int(1))));
        nodes.add(Graphs.node("Add", "logits", "own_logits", "mean"));
        List<ValueInfo> inputs = new ArrayList<>(model.graph().inputs());
        inputs.add(Graphs.floats("context", "batch", "positions", 320));
        return model.withGraph(model.graph()
                .withNodes(nodes)
                .withInterface(inputs, model.graph().outputs()));
    }

    private static Node replaced(Node node, String from, String to) {
        List<String> inputs = node.inputs().stream()
                .map(input -> input.equals(from) ? to : input)
                .toList();
        return node.withInputs(inputs);
    }

    /** A float32 array as NumPy writes it. */
    static Path numpy(Path file, int[] shape, float... values) throws IOException {
        String extents =
                java.util.Arrays.stream(shape).mapToObj(Integer::toString).reduce("", (a, b) -> a + b + ", ");
        String header = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + extents + "), }\n";
        java.nio.ByteBuffer bytes = java.nio.ByteBuffer.allocate(10 + header.length() + 4 * values.length)
                .order(java.nio.ByteOrder.LITTLE_ENDIAN);
        bytes.put((byte) 0x93).put("NUMPY".getBytes(java.nio.charset.StandardCharsets.US_ASCII));
        bytes.put((byte) 1).put((byte) 0).putShort((short) header.length());
        bytes.put(header.getBytes(java.nio.charset.StandardCharsets.US_ASCII));
        for (float value : values) {
            bytes.putFloat(value);
        }
        return Files.write(file, bytes.array());
    }

    /** Extents by symbol. */
    static Map<String, Long> extents(Object... pairs) {
        Map<String, Long> extents = new LinkedHashMap<>();
        for (int i = 0; i < pairs.length; i += 2) {
            extents.put((String) pairs[i], ((Number) pairs[i + 1]).longValue());
        }
        return extents;
    }
}
