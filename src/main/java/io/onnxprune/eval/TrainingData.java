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

/** Reads rows to train on. */
public final class TrainingData {
    private TrainingData() {}

    /**
     * Reads a data file as {@link TokenData} does, with two differences: shorter rows of ids stay, and of a prompt with an answer
     * the answer alone counts, to which the token is added that ends text. What is longer than {@code length} is cut: ids and
     * running text into several rows, answers at their end.
     *
     * @param file .jsonl, .json, .npy, .txt or .text
     * @param tokenizer the tokenizer.json for text; by default the one beside the model
     * @param length tokens of the longest row
     * @param vocabulary how many tokens the model knows
     * @throws UserException when the file cannot be read, has ids that the model does not know, rows longer than its context, or
     *     nothing to learn from
     */
    public static List<Example> read(
            Path file, Path model, Optional<Path> tokenizer, int length, long vocabulary, Log log) {
        TokenData.Rows content = TokenData.load(file, tokenizer.or(() -> Evaluator.tokenizerBeside(model)));
        List<Example> rows = new ArrayList<>();
        content.rows(length).forEach(row -> rows.add(Example.whole(row)));
        ModelSettings settings = ModelSettings.beside(model, log);
        OptionalLong end = settings.eos().stream().mapToLong(Long::longValue).findFirst();
        int cut = 0;
        for (TokenData.Piece piece : content.answers()) {
            long[] tokens = ended(piece.tokens(), end);
            if (piece.prompt() >= Math.min(tokens.length, length)) {
                cut++;
            } else {
                int kept = Math.min(tokens.length, length);
                rows.add(new Example(Arrays.copyOf(tokens, kept), Math.max(1, piece.prompt())));
            }
        }
        if (rows.isEmpty()) {
            throw new UserException(String.format(
                    Locale.ROOT,
                    "%s has nothing to learn from in rows of %,d tokens%s; give more data, or another --seq-len",
                    file,
                    length,
                    cut > 0 ? ", since no answer begins in that many" : ""));
        }
        if (cut > 0) {
            log.warn(String.format(
                    Locale.ROOT,
                    "%,d prompts of %s are left out, since no answer begins in their first %,d tokens; a greater --seq-len"
                            + " keeps them",
                    cut,
                    file,
                    length));
        }
        rows.forEach(row -> settings.requireLength(row.tokens().length, "rows of " + file));
        new TokenData(file, rows.stream().map(Example::tokens).toList()).requireVocabulary(vocabulary);
        return List.copyOf(rows);
    }

    private static long[] ended(long[] tokens, OptionalLong end) {
        if (end.isEmpty()) {
            return tokens;
        }
        long[] longer = Arrays.copyOf(tokens, tokens.length + 1);
        longer[tokens.length] = end.getAsLong();
        return longer;
    }
}
