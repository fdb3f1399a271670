// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import io.onnxprune.ir.DType;
import io.onnxprune.runtime.Session.Io;
import java.util.Arrays;
import java.util.Random;

/** Contents of inputs that nothing is known of: normal noise, always the same for the same input. */
final class Noise {
    private Noise() {}

    /** One vector for each token, which depends only on the token: {@code [batch, tokens, width]}. */
    static HostTensor embeddings(Io input, long[][] tokens) {
        int width = (int) Math.max(1, input.shape()[2]);
        float[] values = new float[tokens.length * tokens[0].length * width];
        int at = 0;
        for (long[] row : tokens) {
            for (long token : row) {
                Random random = new Random(token);
                for (int i = 0; i < width; i++) {
                    values[at++] = (float) random.nextGaussian();
                }
            }
        }
        return HostTensor.ofFloats(input.dtype(), new long[] {tokens.length, tokens[0].length, width}, values);
    }

    /** Noise that is the same for all rows of a batch, so that it does not depend on how rows are batched. */
    static HostTensor rows(String name, DType dtype, long[] shape) {
        int elements = (int) Arrays.stream(shape).reduce(1, Math::multiplyExact);
        int row = shape.length == 0 || shape[0] == 0 ? elements : (int) (elements / shape[0]);
        Random random = new Random(name.hashCode());
        float[] values = new float[elements];
        for (int i = 0; i < elements; i++) {
            values[i] = i < row ? (float) random.nextGaussian() : values[i - row];
        }
        return HostTensor.ofFloats(dtype, shape, values);
    }
}
