// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.eval.CausalLm;
import io.onnxprune.eval.Example;
import io.onnxprune.eval.TrainingData;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.List;
import java.util.Optional;

/**
 * What a model is trained on.
 *
 * @param heldOut rows that only tell when training is at its best; none where the rows themselves do
 */
public record TrainingRows(List<Example> rows, List<Example> heldOut) {
    /** Held-out rows are this share of the data where no file of their own is given, */
    private static final int HELD_OUT_SHARE = 20;
    /** and so many at most. */
    private static final int HELD_OUT_ROWS = 64;

    /**
     * Where rows come from.
     *
     * @param data rows or text to train on
     * @param evaluation held-out data; otherwise some rows of {@code data} are left out
     * @param tokenizer for text; by default the one beside the model
     * @param length tokens of the longest row
     */
    public record Source(Path data, Optional<Path> evaluation, Optional<Path> tokenizer, int length) {}

    /**
     * Reads rows for a model, and tries on the longest whether the model takes it.
     *
     * @param file of the model
     * @throws UserException if a file cannot be read, does not fit the model, or is too short to hold rows out
     */
    public static TrainingRows read(Source source, CausalLm model, Path file, Log log) {
        List<Example> rows = read(source.data, source, model, file, log);
        model.logits(new long[][] {
            rows.stream()
                    .map(Example::tokens)
                    .max(Comparator.comparingInt(row -> row.length))
                    .orElseThrow()
        });
        if (source.evaluation.isPresent()) {
            return new TrainingRows(rows, read(source.evaluation.get(), source, model, file, log));
        }
        int count = Math.min(HELD_OUT_ROWS, rows.size() / HELD_OUT_SHARE);
        if (count == 0) {
            throw new UserException(source.data + " has " + rows.size() + " rows of up to " + source.length
                    + " tokens, too few to hold some out; give more data, or others by --eval to recover");
        }
        int kept = rows.size() - count;
        return new TrainingRows(rows.subList(0, kept), rows.subList(kept, rows.size()));
    }

    /** The rows that a plan was calibrated on: the weights that there are were solved for on all of them, so none is held out. */
    public static TrainingRows of(List<long[]> calibration) {
        return new TrainingRows(calibration.stream().map(Example::whole).toList(), List.of());
    }

    private static List<Example> read(Path data, Source source, CausalLm model, Path file, Log log) {
        return TrainingData.read(data, file, source.tokenizer, source.length, model.vocabulary(), log);
    }
}
