// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import io.onnxprune.diag.UserException;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.SideInputs;
import java.io.IOException;
import java.nio.FloatBuffer;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Map;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.Set;

/**
 * Rows of embeddings from a file, for a model that takes no tokens. The number of a vector in the file, counted through
 * all rows, stands for its token; which token it is the embedding of is not known.
 *
 * @param input the input that takes the rows; empty until the model is known
 * @param vectors float32 {@code [rows, tokens, width]}
 */
record EmbeddingRows(String input, HostTensor vectors) implements SideInputs {
    /**
     * Reads a file.
     *
     * @throws UserException when it is not a float32 array of three axes
     */
    static EmbeddingRows read(Path file) throws IOException {
        HostTensor vectors = NumpyReader.floats(file);
        if (vectors.shape().length != 3) {
            throw new UserException("the embeddings in %s have %d axes; they take three: rows, tokens and width"
                    .formatted(file, vectors.shape().length));
        }
        return new EmbeddingRows("", vectors);
    }

    /** The numbers of the vectors of each row. */
    TokenData.Rows rows() {
        TokenData.Rows rows = new TokenData.Rows();
        int length = (int) vectors.shape()[1];
        for (long row = 0; row < vectors.shape()[0]; row++) {
            long first = row * length;
            long[] numbers = new long[length];
            Arrays.setAll(numbers, i -> first + i);
            rows.fixed.add(numbers);
        }
        return rows;
    }

    @Override
    public Set<String> names() {
        return Set.of(input);
    }

    @Override
    public Map<String, HostTensor> of(long[][] tokens) {
        int width = (int) vectors.shape()[2];
        FloatBuffer all = vectors.asFloats();
        float[] chosen = new float[tokens.length * tokens[0].length * width];
        int at = 0;
        for (long[] row : tokens) {
            for (long token : row) {
                all.get((int) token * width, chosen, at, width);
                at += width;
            }
        }
        return Map.of(input, HostTensor.ofFloat32(new long[] {tokens.length, tokens[0].length, width}, chosen));
    }

    @Override
    public OptionalLong vocabulary() {
        return OptionalLong.of(vectors.shape()[0] * vectors.shape()[1]);
    }

    @Override
    public boolean areOfTokens() {
        return false;
    }

    @Override
    public OptionalInt context(long[][] tokens) {
        return OptionalInt.empty();
    }
}
