// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

/**
 * Draws tokens at temperature 1, with one exponential for each logit and no memory of the size of the vocabulary but a
 * sum for each block of it.
 */
final class TokenSampler {
    private static final int BLOCK = 1024;
    private static final float LOG2_E = 1.442695f;

    /** Powers of two below this are taken as zero. */
    private static final float LEAST_EXPONENT = -126;

    private TokenSampler() {}

    /**
     * The token at quantile {@code uniform} of softmax(logits).
     *
     * @param logits one for each token of the vocabulary
     * @param uniform from 0 to 1, without 1
     * @return a token, or -1 where the logits are no distribution (NaN or +Infinity among them, or all -Infinity)
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
        double left = uniform * total;
        int block = 0;
        while (block < sums.length - 1 && left >= sums[block]) {
            left -= sums[block++];
        }
        return within(logits, max, block, left);
    }

    /** The token of a block at which the sum of the block exceeds {@code left}; rounding may leave that to the last one. */
    private static int within(float[] logits, float max, int block, double left) {
        int end = Math.min(logits.length, (block + 1) * BLOCK);
        int last = -1;
        float sum = 0;
        for (int i = block * BLOCK; i < end; i++) {
            float weight = exp(logits[i] - max);
            sum += weight;
            if (weight > 0) {
                last = i;
                if (sum > left) {
                    return i;
                }
            }
        }
        // The last block may hold nothing but zeros: then rounding has led past the last token that can be drawn.
        return last >= 0 || block == 0 ? last : within(logits, max, block - 1, Double.MAX_VALUE);
    }

    /** e^x for x of at most 0, to the precision of a float: a power of two times a polynomial. NaN stays NaN. */
    static float exp(float x) {
        float y = x * LOG2_E;
        if (y < LEAST_EXPONENT) {
            return 0;
        }
        int whole = (int) (y - 0.5f);
        float z = (y - whole) * 0.6931472f;
        float series = 1 + z * (1 + z * (1f / 2 + z * (1f / 6 + z * (1f / 24 + z * (1f / 120 + z * (1f / 720))))));
        return Float.intBitsToFloat((whole + 127) << 23) * series;
    }
}
