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
import java.util.Set;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

@Tag("ort")
class DrawnTokensTest {
    private static final int LENGTH = 20_001;
    private static final float[] LOGITS = {1, -30, 0, 2.5f};

    private static Session session() {
        GraphBuilder builder = new GraphBuilder("drawn_", Set.of("logits", "tokens"));
        builder.add(Graphs.node("Identity", "drawn", DrawnTokens.append("logits", "tokens", builder)));
        Graph graph = new Graph(
                "drawn",
                List.of(Graphs.floats("logits", "b", "t", "v"), Graphs.value("tokens", DType.INT64, "b", "t")),
                List.of(new ValueInfo("drawn", DType.UNDEFINED, null, new byte[0])),
                List.of(),
                builder.initializers(),
                builder.nodes(),
                new byte[0]);
        return TestModels.runtime().open(Graphs.model(graph), false);
    }

    private static long[] draw(Session session, float[] even, float[] odd) {
        float[] logits = new float[LENGTH * LOGITS.length];
        for (int t = 0; t < LENGTH; t++) {
            System.arraycopy(t % 2 == 0 ? even : odd, 0, logits, t * LOGITS.length, LOGITS.length);
        }
        long[] tokens = new long[LENGTH];
        tokens[0] = 3;
        Map<String, HostTensor> feeds = Map.of(
                "logits", HostTensor.ofFloat32(new long[] {1, LENGTH, LOGITS.length}, logits),
                "tokens", HostTensor.ofInt64(new long[] {1, LENGTH}, tokens));
        try (Outputs outputs = session.run(feeds, List.of("drawn"))) {
            return outputs.tensor("drawn").toLongs();
        }
    }

    @Test
    void tokensFollowTheModelsDistribution() {
        double sum = 0;
        for (float logit : LOGITS) {
            sum += Math.exp(logit);
        }
        try (Session session = session()) {
            long[] drawn = draw(session, LOGITS, LOGITS);
            for (int token = 0; token < LOGITS.length; token++) {
                double expected = Math.exp(LOGITS[token]) / sum;
                int count = 0;
                for (int t = 1; t < LENGTH; t++) {
                    count += drawn[t] == token ? 1 : 0;
                }
                double deviation = Math.sqrt(expected * (1 - expected) / (LENGTH - 1));
                assertThat(count / (LENGTH - 1.0)).isCloseTo(expected, within(4 * deviation + 1e-9));
            }
            assertThat(draw(session, LOGITS, LOGITS)).isNotEqualTo(drawn);
        }
        try (Session session = session();
                Session other = session()) {
            assertThat(draw(session, LOGITS, LOGITS)).isEqualTo(draw(other, LOGITS, LOGITS));
        }
    }

    @Test
    void aTokenIsSampledFromThePredictionBeforeIt() {
        try (Session session = session()) {
            long[] drawn = draw(session, new float[] {50, 0, 0, 0}, new float[] {0, 0, 50, 0});
            assertThat(drawn[0]).isEqualTo(3);
            for (int t = 1; t < LENGTH; t++) {
                assertThat(drawn[t]).isEqualTo(t % 2 == 1 ? 0 : 2);
            }
        }
    }
}
