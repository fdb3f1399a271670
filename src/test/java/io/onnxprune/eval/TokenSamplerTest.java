// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.util.Arrays;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;

class TokenSamplerTest {
    @Test
    void theExponentialHasFloatPrecision() {
        for (float x = 0; x > -87; x -= 0.0137f) {
            assertThat(TokenSampler.exp(x) / Math.exp(x)).as("exp(%s)", x).isCloseTo(1, within(4e-6));
        }
        assertThat(TokenSampler.exp(Float.NEGATIVE_INFINITY)).isZero();
        assertThat(TokenSampler.exp(-200)).isZero();
        assertThat(TokenSampler.exp(Float.NaN)).isNaN();
    }

    /** Compared with a direct computation of the quantile function, for a distribution over several blocks. */
    @Test
    void quantilesFallOnTheRightTokens() {
        SplittableRandom random = new SplittableRandom(3);
        float[] logits = new float[5000];
        for (int i = 0; i < logits.length; i++) {
            logits[i] = (float) random.nextGaussian() * 4 + 30;
        }
        double[] cumulative = new double[logits.length];
        double total = Arrays.stream(doubles(logits)).map(Math::exp).sum();
        for (int i = 0; i < logits.length; i++) {
            cumulative[i] = (i == 0 ? 0 : cumulative[i - 1]) + Math.exp(logits[i]) / total;
        }
        for (int draw = 0; draw < 2000; draw++) {
            double uniform = random.nextDouble();
            int token = TokenSampler.draw(logits, uniform);
            assertThat(uniform).isLessThan(cumulative[token] + 1e-6);
            assertThat(uniform).isGreaterThan((token == 0 ? 0 : cumulative[token - 1]) - 1e-6);
        }
    }

    private static double[] doubles(float[] values) {
        double[] result = new double[values.length];
        Arrays.setAll(result, i -> values[i]);
        return result;
    }

    @Test
    void tokensWithoutProbabilityAreNeverDrawn() {
        float[] logits = new float[3000];
        Arrays.fill(logits, Float.NEGATIVE_INFINITY);
        logits[7] = -1000;
        logits[1500] = -1000;
        for (double uniform : new double[] {0, 0.49, 0.51, Math.nextDown(1.0)}) {
            assertThat(TokenSampler.draw(logits, uniform)).isEqualTo(uniform < 0.5 ? 7 : 1500);
        }
        assertThat(TokenSampler.draw(new float[] {0, Float.NEGATIVE_INFINITY}, Math.nextDown(1.0)))
                .isZero();
    }

    @Test
    void invalidDistributionsAreReported() {
        assertThat(TokenSampler.draw(new float[] {1, Float.NaN}, 0.5)).isEqualTo(-1);
        assertThat(TokenSampler.draw(new float[] {1, Float.POSITIVE_INFINITY}, 0.5))
                .isEqualTo(-1);
        assertThat(TokenSampler.draw(new float[] {Float.NEGATIVE_INFINITY, Float.NEGATIVE_INFINITY}, 0.5))
                .isEqualTo(-1);
    }
}
