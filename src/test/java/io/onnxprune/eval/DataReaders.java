// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import io.onnxprune.diag.Log;
import java.nio.file.Path;

/** Readers of this package for tests of other packages. */
public final class DataReaders {
    private DataReaders() {}

    /** Encodes a text with a tokenizer.json. */
    public static void tokenizer(Path file, String text) {
        try (TextTokenizer tokenizer = new TextTokenizer(file)) {
            tokenizer.encode(text);
        }
    }

    /** Reads the settings beside a model. */
    public static void settings(Path model) {
        ModelSettings.beside(model, Log.NONE);
    }
}
