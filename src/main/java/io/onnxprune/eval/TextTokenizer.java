// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import ai.djl.huggingface.tokenizers.Encoding;
import ai.djl.huggingface.tokenizers.HuggingFaceTokenizer;
import io.onnxprune.diag.CacheFolder;
import io.onnxprune.diag.UserException;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Map;
import java.util.OptionalLong;

/** Encodes text into token ids with a {@code tokenizer.json}, without network access. */
final class TextTokenizer implements AutoCloseable {
    private final HuggingFaceTokenizer tokenizer;

    /** Must be called before any class of the library is initialised. */
    private static void prepare() {
        // In offline mode the library loads its native part from the jar, also beside a GPU, and connects to no server.
        setDefault("ai.djl.offline", "true");
        setDefault("OPT_OUT_TRACKING", "true");
        setDefault("DJL_CACHE_DIR", CacheFolder.folder("tokenizers").toString());
    }

    private static void setDefault(String property, String value) {
        if (System.getProperty(property) == null) {
            System.setProperty(property, value);
        }
    }

    /**
     * Loads a tokenizer.
     *
     * @throws UserException when the file does not exist or is not a tokenizer
     */
    TextTokenizer(Path file) {
        if (!Files.isRegularFile(file)) {
            throw new UserException("the tokenizer " + file + " does not exist; give the tokenizer.json that the model"
                    + " was exported with");
        }
        prepare();
        // Data is cut into windows later, so the tokenizer must neither truncate nor pad.
        Map<String, String> options =
                Map.of("truncation", "do_not_truncate", "padding", "do_not_pad", "addSpecialTokens", "true");
        try (InputStream in = Files.newInputStream(file)) {
            tokenizer = HuggingFaceTokenizer.newInstance(in, options);
        } catch (IOException | RuntimeException | LinkageError e) {
            throw new UserException(
                    "the tokenizer %s cannot be read (%s); give the tokenizer.json that the model was exported with"
                            .formatted(file, firstLine(e)),
                    e);
        }
    }

    private static String firstLine(Throwable failure) {
        return String.valueOf(failure.getMessage())
                .lines()
                .findFirst()
                .orElse(failure.getClass().getSimpleName());
    }

    /**
     * The ids of a text, with the special tokens that the tokenizer puts in front (BOS) and without those that it
     * appends.
     */
    long[] encode(String text) {
        Encoding encoding = tokenizer.encode(text, true, false);
        long[] ids = encoding.getIds();
        long[] special = encoding.getSpecialTokenMask();
        int end = ids.length;
        while (end > 0 && special[end - 1] != 0) {
            end--;
        }
        return Arrays.copyOf(ids, end);
    }

    /** The special token that the tokenizer puts in front (BOS); empty when there is none. */
    OptionalLong beginning() {
        Encoding encoding = tokenizer.encode("a", true, false);
        return encoding.getIds().length > 1 && encoding.getSpecialTokenMask()[0] != 0
                ? OptionalLong.of(encoding.getIds()[0])
                : OptionalLong.empty();
    }

    @Override
    public void close() {
        tokenizer.close();
    }
}
