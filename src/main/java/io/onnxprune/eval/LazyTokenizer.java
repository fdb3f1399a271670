// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import io.onnxprune.diag.UserException;
import java.nio.file.Path;
import java.util.Optional;

/** Loads the tokenizer of a data file on first use, because data with ids needs none. */
final class LazyTokenizer implements AutoCloseable {
    private final Path data;
    private final Optional<Path> file;
    private TextTokenizer tokenizer;

    LazyTokenizer(Path data, Optional<Path> file) {
        this.data = data;
        this.file = file;
    }

    TextTokenizer get() {
        if (tokenizer == null) {
            tokenizer = new TextTokenizer(file.orElseThrow(() -> new UserException(
                    "the data file %s has text, and there is no tokenizer; put tokenizer.json beside the model or give --tokenizer FILE"
                            .formatted(data))));
        }
        return tokenizer;
    }

    @Override
    public void close() {
        if (tokenizer != null) {
            tokenizer.close();
        }
    }
}
