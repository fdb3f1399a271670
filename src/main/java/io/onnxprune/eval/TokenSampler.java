// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

/**
 * Samples tokens at temperature 1. It computes one exponential for each logit and stores only one sum for each block
 * of the vocabulary.
 */
final class TokenSampler {
    private static final int BLOCK = 1024;
    private static final float LOG2_E = 1.442695f;

    /** Exponents below this give zero. */
    private static final float MIN_EXPONENT = -126;

    private TokenSampler() {}

    /**
     * The token at quantile {@code uniform} of softmax(logits).
     *
     * @param logits one for each token of the vocabulary
     * @param uniform uniform random number in [0, 1)
     * @return a token; -1 when the logits are not a distribution (any NaN or +Infinity, or only -Infinity)
     */
    static int draw(float[] logits, double uniform) {
        float max = Float.NEGATIVE_INFINITY;
        for (float logit : logits) {
            max = Math.max(max, logit);
        }
        double[] sums = new double[(logits.length + BLOCK - 1) / BLOCK];
        double total = 0;
        for (int block = 0; block < sums.length; block++) {
            int end = Math.min(logits.length, (block + 1) * BLOCK);
            float sum = 0;
            for (int i = block * BLOCK; i < end; i++) {
                sum += exp(logits[i] - max);
            }
            sums[block] = sum;
            total += sum;
        }
        if (!(total > 0) || Double.isInfinite(total)) {
            return -1;
        }
        double remaining = uniform * total;
        int block = 0;
        while (block < sums.length - 1 && remaining >= sums[block]) {
            remaining -= sums[block++];
        }
        return within(logits, max, block, remaining);
    }

    /**
     * The token at which the running sum of a block exceeds {@code threshold}; because of rounding, possibly the
     * block's last token.
     */
    private static int within(float[] logits, float max, int block, double threshold) {
        int end = Math.min(logits.length, (block + 1) * BLOCK);
        int last = -1;
        float sum = 0;
        for (int i = block * BLOCK; i < end; i++) {
            float weight = exp(logits[i] - max);
            sum += weight;
            if (weight > 0) {
                last = i;
                if (sum > threshold) {
                    return i;
                }
            }
        }
        // The block may hold only zeros. Then rounding went past the last token of positive probability.
        return last >= 0 || block == 0 ? last : within(logits, max, block - 1, Double.MAX_VALUE);
    }

    /** e^x for x ≤ 0 to float32 precision, as a power of two times a polynomial. NaN stays NaN. */
    static float exp(float x) {
        float y = x * LOG2_E;
        if (y < MIN_EXPONENT) {
            return 0;
        }
        int exponent = (int) (y - 0.5f);
        float z = (y - exponent) * 0.6931472f;
        float series = 1 + z * (1 + z * (1f / 2 + z * (1f / 6 + z * (1f / 24 + z * (1f / 120 + z * (1f / 720))))));
        return Float.intBitsToFloat((exponent + 127) << 23) * series;
    }
}
