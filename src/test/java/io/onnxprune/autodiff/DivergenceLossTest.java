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
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

@Tag("ort")
class DivergenceLossTest {
    private static final int VOCABULARY = 9;

    private final Session session = session();

    @AfterEach
    void close() {
        session.close();
    }

    private static Session session() {
        GraphBuilder builder = new GraphBuilder("loss_", Set.of("logits", "reference"));
        DivergenceLoss loss = DivergenceLoss.append("logits", "reference", builder);
        builder.add(Graphs.node("Identity", "rows", loss.rows()));
        builder.add(Graphs.node("Identity", "gradient", loss.gradient()));
        Graph graph = new Graph(
                "loss",
                List.of(Graphs.floats("logits", "b", "t", "v"), Graphs.floats("reference", "b", "t", "v")),
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

    private float[] run(String output, int batch, float[] logits, float[] reference) {
        long[] shape = {batch, logits.length / batch / VOCABULARY, VOCABULARY};
        Map<String, HostTensor> feeds = Map.of(
                "logits", HostTensor.ofFloat32(shape, logits), "reference", HostTensor.ofFloat32(shape, reference));
        try (Outputs outputs = session.run(feeds, List.of(output))) {
            return outputs.tensor(output).toFloats();
        }
    }

    @Test
    void lossAndGradientMatchTheDefinition() {
        Random random = new Random(4);
        for (int[] size : new int[][] {{1, 1}, {3, 5}, {2, 17}}) {
            for (float scale : new float[] {1, 30, 3000}) {
                float[] logits = random(random, size[0] * size[1] * VOCABULARY, scale);
                float[] reference = random(random, logits.length, scale);
                float[] rows = run("rows", size[0], logits, reference);
                float[] gradient = run("gradient", size[0], logits, reference);
                assertThat(rows).hasSize(size[0]);
                for (int row = 0; row < size[0]; row++) {
                    double mean = 0;
                    for (int t = 0; t < size[1]; t++) {
                        int start = (row * size[1] + t) * VOCABULARY;
                        double[] log = logProbabilities(logits, start);
                        double[] theirs = logProbabilities(reference, start);
                        for (int v = 0; v < VOCABULARY; v++) {
                            double p = Math.exp(theirs[v]);
                            mean += p == 0 ? 0 : p * (theirs[v] - log[v]) / size[1];
                            assertThat((double) gradient[start + v])
                                    .isCloseTo((Math.exp(log[v]) - p) / size[1], within(1e-6));
                        }
                    }
                    assertThat((double) rows[row]).isCloseTo(mean, within(1e-6 * (1 + scale)));
                }
            }
        }
    }

    @Test
    void theGradientPredictsTheLoss() {
        Random random = new Random(6);
        float[] logits = random(random, 2 * 4 * VOCABULARY, 2);
        float[] reference = random(random, logits.length, 2);
        float[] gradient = run("gradient", 2, logits, reference);
        float[] way = random(random, logits.length, 1);
        float[] ahead = logits.clone();
        float[] behind = logits.clone();
        double predicted = 0;
        for (int i = 0; i < logits.length; i++) {
            ahead[i] += 0.01f * way[i];
            behind[i] -= 0.01f * way[i];
            predicted += (double) gradient[i] * (ahead[i] - behind[i]);
        }
        double change = sum(run("rows", 2, ahead, reference)) - sum(run("rows", 2, behind, reference));

        assertThat(Math.abs(change)).isGreaterThan(1e-3);
        assertThat(predicted).isCloseTo(change, within(1e-3 * Math.abs(change)));
    }

    @Test
    void divergenceFromItselfIsZero() {
        float[] logits = random(new Random(8), 3 * 5 * VOCABULARY, 20);

        assertThat(run("rows", 3, logits, logits)).containsOnly(0);
        assertThat(run("gradient", 3, logits, logits)).containsOnly(0);
    }

    /** Some exports give logits of minus infinity to tokens that are never generated. */
    @Test
    void tokensOfReferenceProbabilityZeroDoNotCount() {
        float[] logits = random(new Random(9), 2 * VOCABULARY, 1);
        float[] reference = random(new Random(10), logits.length, 1);
        float[] both = logits.clone();
        reference[3] = Float.NEGATIVE_INFINITY;
        both[3] = Float.NEGATIVE_INFINITY;

        for (float[] model : List.of(logits, both)) {
            assertThat(run("rows", 1, model, reference)[0]).isFinite().isPositive();
            for (float part : run("gradient", 1, model, reference)) {
                assertThat(part).isFinite();
            }
        }
        assertThat(run("rows", 1, reference, reference)).containsOnly(0);
        assertThat(run("rows", 1, both, logits)).containsOnly(Float.POSITIVE_INFINITY);
    }

    private static float[] random(Random random, int count, float scale) {
        float[] values = new float[count];
        for (int i = 0; i < count; i++) {
            values[i] = scale * (float) random.nextGaussian();
        }
        return values;
    }

    private static double sum(float[] values) {
        double sum = 0;
        for (float value : values) {
            sum += value;
        }
        return sum;
    }

    private static double[] logProbabilities(float[] logits, int start) {
        double largest = Double.NEGATIVE_INFINITY;
        for (int v = 0; v < VOCABULARY; v++) {
            largest = Math.max(largest, logits[start + v]);
        }
        double sum = 0;
        for (int v = 0; v < VOCABULARY; v++) {
            sum += Math.exp(logits[start + v] - largest);
        }
        double[] result = new double[VOCABULARY];
        for (int v = 0; v < VOCABULARY; v++) {
            result[v] = logits[start + v] - largest - Math.log(sum);
        }
        return result;
    }
}
