// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Bytes;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.onnx.ModelWriter;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Parameters in operators that cannot be pruned or differentiated are counted and told, before anything is measured. */
@Tag("ort")
class OutOfReachTest {
    @TempDir
    private Path folder;

    private Path model;

    /** A decoder with a product in four bits of an operator without a rule before its output layer. */
    @BeforeEach
    void withStrangeProduct() {
        Model read = ModelReader.read(TestModels.file("llama-gqa-b"));
        Graph graph = read.graph();
        String logits = graph.outputs().get(0).name();
        List<Node> nodes = new ArrayList<>();
        for (Node node : graph.nodes()) {
            if (node.outputs().contains(logits)) {
                nodes.add(new Node(
                        "strange",
                        "com.microsoft",
                        "MatMulBnb4",
                        List.of(node.input(0), "strange_weight", "strange_scales"),
                        List.of("strange_out"),
                        Map.of(
                                "K", new Attribute.Int(64),
                                "N", new Attribute.Int(64),
                                "block_size", new Attribute.Int(32),
                                "quant_type", new Attribute.Int(1)),
                        new byte[0]));
                nodes.add(node.withInput(0, "strange_out"));
            } else {
                nodes.add(node);
            }
        }
        Map<String, Tensor> initializers = new LinkedHashMap<>(graph.initializers());
        initializers.put(
                "strange_weight",
                Tensor.of(DType.UINT8, new long[] {64 * 64 / 2}, Bytes.of(ByteBuffer.allocate(64 * 64 / 2))));
        float[] scales = new float[64 * 2];
        Arrays.fill(scales, 0.1f);
        initializers.put("strange_scales", Tensor.ofFloats(DType.FLOAT, new long[] {64 * 2}, scales));
        Map<String, Long> opsets = new LinkedHashMap<>(read.opsets());
        opsets.put("com.microsoft", 1L);
        Model changed = new Model(
                read.irVersion(),
                opsets,
                graph.withNodes(nodes).withInitializers(initializers),
                read.metadata(),
                false,
                read.source(),
                read.rest());
        model = folder.resolve("strange.onnx");
        ModelWriter.write(changed, model, false);
    }

    @Test
    void theirParametersCount() {
        long before = parameters(TestModels.file("llama-gqa-b"));

        assertThat(parameters(model)).isEqualTo(before + 64 * 64);
    }

    private static long parameters(Path file) {
        String out = Cli.run("inspect", file).succeeded().out();
        return Long.parseLong(
                out.replaceAll("(?s).*?: ([0-9,]+) parameters.*", "$1").replace(",", ""));
    }

    @Test
    void aWarningTellsTheirShare() {
        String err = Cli.run(model, "--method", "magnitude", "-o", folder.resolve("out.onnx"))
                .succeeded()
                .err();

        assertThat(err)
                .contains(" % of the parameters are in operators that cannot be pruned, such as node \"strange\""
                        + " (com.microsoft.MatMulBnb4)");
    }

    @Test
    void gradientsAreRefusedBeforeTextIsWritten() {
        Cli.Run run = Cli.run(model, "--method", "llm-pruner", "-o", folder.resolve("out.onnx"));

        run.failed(1, "no gradient can be computed through node \"strange\"");
        assertThat(run.err()).doesNotContain("the model writes");
    }
}
