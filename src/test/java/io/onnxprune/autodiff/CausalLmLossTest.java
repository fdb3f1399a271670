// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.TestModels;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.GraphBuilder;
import io.onnxprune.ir.Graphs;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.Outputs;
import io.onnxprune.runtime.Session;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

@Tag("ort")
class CausalLmLossTest {
    private static final int VOCABULARY = 9;

    @ParameterizedTest
    @EnumSource(names = {"INT64", "INT32"})
    void lossAndGradientMatchTheDefinition(DType dtype) {
        try (Session session = session(dtype)) {
            for (int[] size : new int[][] {{1, 2}, {3, 5}, {2, 17}}) {
                for (float scale : new float[] {1, 30, 3000}) {
                    check(session, dtype, size[0], size[1], scale);
                }
            }
        }
    }

    private static Session session(DType dtype) {
        GraphBuilder builder = new GraphBuilder("loss_", Set.of("logits", "tokens"));
        CausalLmLoss loss = CausalLmLoss.append("logits", "tokens", builder);
        builder.add(Graphs.node("Identity", "rows", loss.rows()));
        builder.add(Graphs.node("Identity", "gradient", loss.gradient()));
        Graph graph = new Graph(
                "loss",
                List.of(Graphs.floats("logits", "b", "t", "v"), Graphs.value("tokens", dtype, "b", "t")),
                List.of(output("rows"), output("gradient")),
                List.of(),
                builder.initializers(),
                builder.nodes(),
                new byte[0]);
        return TestModels.runtime().open(Graphs.model(graph), false);
    }

    private static ValueInfo output(String name) {
        return new ValueInfo(name, DType.UNDEFINED, null, new byte[0]);
    }

    private static void check(Session session, DType dtype, int batch, int length, float scale) {
        Random random = new Random(batch * 100L + length);
        float[] logits = new float[batch * length * VOCABULARY];
        for (int i = 0; i < logits.length; i++) {
            logits[i] = scale * (float) random.nextGaussian();
        }
        long[] tokens = random.longs((long) batch * length, 0, VOCABULARY).toArray();
        Map<String, HostTensor> feeds = Map.of(
                "logits", HostTensor.ofFloat32(new long[] {batch, length, VOCABULARY}, logits),
                "tokens", HostTensor.ofIntegers(dtype, new long[] {batch, length}, tokens));
        try (Outputs outputs = session.run(feeds, List.of("rows", "gradient"))) {
            float[] rows = outputs.tensor("rows").toFloats();
            float[] gradient = outputs.tensor("gradient").toFloats();
            assertThat(outputs.shape("rows")).containsExactly(batch);
            assertThat(outputs.shape("gradient")).containsExactly(batch, length, VOCABULARY);
            for (int row = 0; row < batch; row++) {
                double mean = 0;
                for (int t = 0; t < length; t++) {
                    int at = row * length + t;
                    boolean last = t == length - 1;
                    int next = last ? -1 : (int) tokens[at + 1];
                    double normalizer = logSumExp(logits, at * VOCABULARY);
                    mean += last ? 0 : (normalizer - logits[at * VOCABULARY + next]) / (length - 1);
                    for (int v = 0; v < VOCABULARY; v++) {
                        double p = Math.exp(logits[at * VOCABULARY + v] - normalizer);
                        double expected = last ? 0 : (p - (v == next ? 1 : 0)) / (length - 1);
                        assertThat((double) gradient[at * VOCABULARY + v]).isCloseTo(expected, within(1e-6));
                    }
                }
                assertThat((double) rows[row]).isCloseTo(mean, within(1e-6 * (1 + scale)));
            }
        }
    }

    private static double logSumExp(float[] logits, int start) {
        double largest = Double.NEGATIVE_INFINITY;
        for (int v = 0; v < VOCABULARY; v++) {
            largest = Math.max(largest, logits[start + v]);
        }
        double sum = 0;
        for (int v = 0; v < VOCABULARY; v++) {
            sum += Math.exp(logits[start + v] - largest);
        }
        return largest + Math.log(sum);
    }
}
