// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import java.nio.file.Path;
import java.util.Arrays;

/** A tokenizer for tests of other packages. */
public final class Tokens implements AutoCloseable {
    private final TextTokenizer tokenizer;

    public Tokens(Path file) {
        tokenizer = new TextTokenizer(file);
    }

    /** The ids of a text, without special tokens around it. */
    public int[] alone(String text) {
        return Arrays.stream(tokenizer.encodeAlone(text))
                .mapToInt(id -> (int) id)
                .toArray();
    }

    /** The ids of a text with the special token in front. */
    public int[] withBeginning(String text) {
        return Arrays.stream(tokenizer.encode(text)).mapToInt(id -> (int) id).toArray();
    }

    public String text(int... ids) {
        return tokenizer.decode(Arrays.stream(ids).asLongStream().toArray());
    }

    @Override
    public void close() {
        tokenizer.close();
    }
}
