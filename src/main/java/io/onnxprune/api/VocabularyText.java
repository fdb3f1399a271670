// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.eval.CountedText;
import io.onnxprune.eval.Evaluation;
import io.onnxprune.eval.Retokenizer;
import io.onnxprune.vocabulary.KeptTokens;
import io.onnxprune.vocabulary.TokenizerFile;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.stream.Collectors;

/** The rows of a run in the kept tokens: those to calibrate on, and the held-out ones in the tokens of both models. */
final class VocabularyText {
    private final KeptTokens kept;
    private final CountedText text;
    private final Log log;
    private final List<long[]> calibration = new ArrayList<>();
    private final List<long[]> before = new ArrayList<>();
    private final List<long[]> after = new ArrayList<>();
    private long bytesBefore;
    private long bytesAfter;

    private VocabularyText(KeptTokens kept, CountedText text, Log log) {
        this.kept = kept;
        this.text = text;
        this.log = log;
    }

    /**
     * Writes text in the kept tokens.
     *
     * @param tokenizer of the original
     * @param reduced the tokenizer with the kept tokens
     * @throws UserException if nothing is left to calibrate on
     */
    static VocabularyText of(
            CountedText text, KeptTokens kept, Optional<TokenizerFile> tokenizer, Path reduced, Log log) {
        VocabularyText rows = new VocabularyText(kept, text, log);
        if (tokenizer.isPresent()) {
            rows.encode(tokenizer.get(), reduced);
        } else {
            rows.renumber();
        }
        rows.equalLengths();
        return rows;
    }

    private void encode(TokenizerFile tokenizer, Path reduced) {
        try (Retokenizer texts = new Retokenizer(
                tokenizer.path(), reduced, id -> tokenizer.added().contains((int) id) ? kept.newId(id) : -1)) {
            if (text.data().calibrates()) {
                text.data()
                        .rows()
                        .forEach(row ->
                                calibration.add(texts.row(row, row.length).ids()));
            }
            for (long[] row : text.data().heldOut()) {
                Retokenizer.Row found = texts.row(row, text.limit());
                if (fits(found.ids())) {
                    before.add(row);
                    after.add(found.ids());
                    bytesBefore += found.bytesBefore();
                    bytesAfter += found.bytesAfter();
                }
            }
        }
    }

    /** Without a tokenizer only rows of kept tokens can be written. */
    private void renumber() {
        for (long[] row : text.data().calibrates() ? text.data().rows() : List.<long[]>of()) {
            if (Arrays.stream(row).allMatch(id -> kept.newId(id) >= 0)) {
                calibration.add(renumbered(row));
            }
        }
        for (long[] row : text.data().heldOut()) {
            int start = 0;
            for (int end = 0; end <= row.length; end++) {
                if (end == row.length || kept.newId(row[end]) < 0) {
                    if (fits(Arrays.copyOfRange(row, start, end))) {
                        before.add(Arrays.copyOfRange(row, start, end));
                        after.add(renumbered(Arrays.copyOfRange(row, start, end)));
                    }
                    start = end + 1;
                }
            }
        }
        int lost = text.data().rows().size() - calibration.size();
        if (text.data().calibrates() && lost > 0) {
            log.warn(
                    "%d of %d calibration rows have tokens that go, and without a tokenizer they cannot be written in others; they are left out"
                            .formatted(lost, text.data().rows().size()));
        }
    }

    /** Whether the model takes a row and predicts something in it. */
    private boolean fits(long[] row) {
        return text.whole() ? row.length == text.limit() : row.length >= 2;
    }

    private long[] renumbered(long[] row) {
        return Arrays.stream(row).map(kept::newId).toArray();
    }

    /** Rows to calibrate on are all of one length. */
    private void equalLengths() {
        if (text.data().calibrates() && !text.data().rows().isEmpty()) {
            calibration.removeIf(row -> !fits(row));
            int length = calibration.stream().mapToInt(row -> row.length).min().orElse(0);
            if (length < 2) {
                throw new UserException("no calibration row of two tokens is left in the kept tokens; give more text");
            }
            calibration.replaceAll(row -> Arrays.copyOf(row, length));
        }
    }

    /** Number of rows to calibrate on. */
    int samples() {
        return calibration.size();
    }

    /** Tokens of each row to calibrate on. */
    int length() {
        return calibration.get(0).length;
    }

    /** Whether there are rows to calibrate on. */
    boolean calibrates() {
        return !calibration.isEmpty();
    }

    /** Held-out rows in all tokens. */
    List<long[]> before() {
        return before;
    }

    /**
     * The data of the rest of the run, as files in a folder.
     *
     * @param given the data of the run
     */
    DataSettings settings(DataSettings given, Path folder) {
        DataSettings settings = given.hasFiles() ? new DataSettings() : given.withoutFiles(kept::newId);
        if (calibrates()) {
            settings.calibration(written(folder.resolve("calibration.jsonl"), calibration), 1);
            settings.samples(samples());
        }
        if (!after.isEmpty()) {
            settings.evaluation(written(folder.resolve("held-out.jsonl"), after));
        }
        return settings;
    }

    private static Path written(Path file, List<long[]> rows) {
        String lines = rows.stream()
                .map(row -> "{\"input_ids\":" + Arrays.toString(row) + "}\n")
                .collect(Collectors.joining());
        try {
            return Files.write(file, lines.getBytes(UTF_8));
        } catch (IOException e) {
            throw new UserException("rows of the kept tokens cannot be written: " + FileFailure.reason(e), e);
        }
    }

    /** What the held-out text became; empty where its bytes are not known. */
    Optional<VocabularyReport.HeldOut> heldOut(Optional<Evaluation> first, Optional<Evaluation> second) {
        if (bytesBefore <= 0 || bytesAfter <= 0 || first.isEmpty() || second.isEmpty()) {
            return Optional.empty();
        }
        Evaluation all = first.get();
        Evaluation some = second.get();
        double perByteBefore = (double) all.tokens() / bytesBefore;
        double perByteAfter = (double) some.tokens() / bytesAfter;
        return Optional.of(new VocabularyReport.HeldOut(
                all.tokens(),
                some.tokens(),
                perByteAfter / perByteBefore,
                Math.exp(all.nll() * perByteBefore),
                Math.exp(some.nll() * perByteAfter)));
    }
}
