// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.OptionalLong;

/** Reads training data. */
public final class TrainingData {
    private TrainingData() {}

    /**
     * Reads a data file of a type that {@link TokenData#read} takes. Of a prompt with an answer, only the answer
     * counts, and the EOS token is appended to it. Rows of ids and running text that are longer than {@code length}
     * are cut into several rows; answers are truncated. Shorter rows of ids are kept.
     *
     * @param file .jsonl, .json, .npy, .txt or .text
     * @param model the model's file, for its settings
     * @param tokenizer the tokenizer.json for text; by default the one beside the model
     * @param length maximal number of tokens in a row
     * @param vocabulary size of the model's vocabulary
     * @throws UserException when the file cannot be read, has ids outside the vocabulary, rows longer than the model's
     *     context, or no training targets
     */
    public static List<Example> read(
            Path file, Path model, Optional<Path> tokenizer, int length, long vocabulary, Log log) {
        TokenData.Rows content = TokenData.load(file, tokenizer.or(() -> Evaluator.tokenizerBeside(model)));
        List<Example> rows = new ArrayList<>();
        content.rows(length).forEach(row -> rows.add(Example.whole(row)));
        ModelSettings settings = ModelSettings.beside(model, log);
        OptionalLong end = settings.eos().stream().mapToLong(Long::longValue).findFirst();
        int skipped = 0;
        for (TokenData.Piece piece : content.answers()) {
            long[] tokens = withEnd(piece.tokens(), end);
            if (piece.prompt() >= Math.min(tokens.length, length)) {
                skipped++;
            } else {
                int kept = Math.min(tokens.length, length);
                rows.add(new Example(Arrays.copyOf(tokens, kept), Math.max(1, piece.prompt())));
            }
        }
        if (rows.isEmpty()) {
            throw new UserException(String.format(
                    Locale.ROOT,
                    "%s has no training targets in rows of %,d tokens%s; give more data, or another --seq-len",
                    file,
                    length,
                    skipped > 0 ? ", because no answer begins in that many" : ""));
        }
        if (skipped > 0) {
            log.warn(String.format(
                    Locale.ROOT,
                    "%,d prompts of %s are left out, because no answer begins in their first %,d tokens; a greater --seq-len"
                            + " keeps them",
                    skipped,
                    file,
                    length));
        }
        rows.forEach(row -> settings.requireLength(row.tokens().length, "rows of " + file));
        new TokenData(file, rows.stream().map(Example::tokens).toList()).requireVocabulary(vocabulary);
        return List.copyOf(rows);
    }

    private static long[] withEnd(long[] tokens, OptionalLong end) {
        if (end.isEmpty()) {
            return tokens;
        }
        long[] extended = Arrays.copyOf(tokens, tokens.length + 1);
        extended[tokens.length] = end.getAsLong();
        return extended;
    }
}
