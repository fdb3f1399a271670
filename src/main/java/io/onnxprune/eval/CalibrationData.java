// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.function.ToIntFunction;
import java.util.stream.Collectors;

/**
 * The data of a run.
 *
 * @param rows token ids to calibrate on, all rows of one length; empty when there is only data to measure perplexity
 *     on
 * @param heldOut token ids to measure perplexity on, rows of at least two tokens
 * @param sources where the rows came from
 * @param calibrates whether the method uses {@code rows}
 */
public record CalibrationData(List<long[]> rows, List<long[]> heldOut, List<Source> sources, boolean calibrates) {
    /** Name of the source of text that the model generated itself. */
    public static final String SELF = "self";

    /**
     * A source of data: a file, or the model itself.
     *
     * @param name the file as the user named it, or {@value #SELF}
     * @param rows number of calibration rows from it
     * @param heldOut number of held-out rows from it
     */
    public record Source(String name, int rows, int heldOut) {
        private String shortName() {
            return name.equals(SELF)
                    ? "the model itself"
                    : String.valueOf(Path.of(name).getFileName());
        }
    }

    public CalibrationData {
        rows = List.copyOf(rows);
        heldOut = List.copyOf(heldOut);
        sources = List.copyOf(sources);
    }

    /**
     * Reads or generates the requested data, and runs the model on one row to check that it can.
     *
     * @param model the model to prune
     * @param file the model's file; its configuration and tokenizer are looked for in the same folder
     * @param workDir folder in which generated text is stored
     * @throws io.onnxprune.diag.UserException when data cannot be read, is too short, or does not fit the model
     */
    public static CalibrationData resolve(CausalLm model, Path file, DataRequest asked, Path workDir, Log log) {
        DataRequest request = fitted(asked, model.graph().fixedLength());
        ModelSettings settings = ModelSettings.beside(file, log);
        Optional<Path> tokenizer = request.tokenizer().or(() -> Evaluator.tokenizerBeside(file));
        Evaluator.warnOfNoise(model.graph(), log);
        CalibrationData data = new FileWindows(request, tokenizer, settings, log).read(model.vocabulary());
        // Checks first that the model runs on such a row, and gives logits for every position, because the rest takes
        // long.
        long[][] first = {data.rows.stream().findFirst().orElse(new long[2])};
        if (model.hasLanguageLoss()) {
            model.logits(first);
        } else {
            model.results(first);
        }
        if (!request.self()) {
            return data;
        }
        if (!model.hasLanguageLoss()) {
            throw new UserException(
                    "the model has no output over a vocabulary, so it cannot write text to calibrate on; give --calibration FILE");
        }
        SelfData self = new SelfData(model, file, request, settings, log);
        List<long[]> written = self.rows(workDir, tokenizer);
        int samples = written.size() - self.heldOut();
        List<long[]> heldOut = new ArrayList<>(written.subList(samples, written.size()));
        heldOut.addAll(data.heldOut);
        List<Source> sources = new ArrayList<>(List.of(new Source(SELF, samples, self.heldOut())));
        sources.addAll(data.sources);
        return new CalibrationData(written.subList(0, samples), heldOut, sources, request.calibrates());
    }

    /** The request for a model that may take rows of one length only. */
    static DataRequest fitted(DataRequest request, OptionalInt fixedLength) {
        if (fixedLength.isEmpty()) {
            return request;
        }
        int length = fixedLength.getAsInt();
        if (request.sequenceLength().orElse(length) != length) {
            throw new UserException("the model takes rows of %d tokens only; leave --seq-len out".formatted(length));
        }
        return request.ofLength(length);
    }

    /** Number of tokens in each calibration row; 0 when there are none. */
    public int length() {
        return rows.isEmpty() ? 0 : rows.get(0).length;
    }

    /** Number of calibration tokens. */
    public long tokens() {
        return (long) rows.size() * length();
    }

    /** Number of predictions that perplexity averages over: all held-out tokens except the first of each row. */
    public long predictions() {
        return heldOut.stream().mapToLong(row -> row.length - 1).sum();
    }

    /**
     * A line for the report that says which data was used for calibration and for the measure on held-out rows; empty when
     * neither was done.
     *
     * @param measure the name of the measure: perplexity, or another; empty for none
     */
    public String describe(String measure) {
        List<String> parts = new ArrayList<>();
        if (calibrates) {
            parts.add(String.format(
                    Locale.ROOT,
                    "calibration: %s of %,d tokens from %s (%,d tokens)",
                    count(rows.size(), "window"),
                    length(),
                    names(Source::rows),
                    tokens()));
        }
        if (!measure.isEmpty()) {
            boolean fromCalibration = sources.stream().anyMatch(source -> source.rows > 0 && source.heldOut > 0);
            parts.add(String.format(
                    Locale.ROOT,
                    "%s on %s%s (%,d %s)",
                    measure,
                    count(heldOut.size(), fromCalibration ? "held-out window" : "row"),
                    calibrates && fromCalibration ? "" : " from " + names(Source::heldOut),
                    measure.equals("perplexity") ? predictions() : heldOutTokens(),
                    measure.equals("perplexity") ? "predictions" : "tokens"));
        }
        return String.join("; ", parts);
    }

    private long heldOutTokens() {
        return heldOut.stream().mapToLong(row -> row.length).sum();
    }

    private static String count(int number, String noun) {
        return String.format(Locale.ROOT, "%,d %s%s", number, noun, number == 1 ? "" : "s");
    }

    /** The names of the sources with any rows, with the number of rows when there are several. */
    private String names(ToIntFunction<Source> rowsOf) {
        List<Source> some =
                sources.stream().filter(source -> rowsOf.applyAsInt(source) > 0).toList();
        return some.stream()
                .map(source -> source.shortName() + (some.size() > 1 ? " (" + rowsOf.applyAsInt(source) + ")" : ""))
                .collect(Collectors.joining(" and "));
    }
}
