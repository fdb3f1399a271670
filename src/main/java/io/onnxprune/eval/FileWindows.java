// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.eval.CalibrationData.Source;
import io.onnxprune.eval.DataRequest.WeightedFile;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.IntSummaryStatistics;
import java.util.List;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.SplittableRandom;
import java.util.stream.IntStream;

/**
 * Chooses windows of data files: each file's share to calibrate on, and others to measure perplexity on. The choice
 * depends only on the files and the seed.
 */
final class FileWindows {
    /** Number of held-out windows unless an evaluation file is given. */
    private static final int HELD_OUT = 64;

    private final DataRequest request;
    private final Optional<Path> tokenizer;
    private final ModelSettings settings;
    private final Log log;
    private final List<long[]> rows = new ArrayList<>();
    private final List<long[]> heldOut = new ArrayList<>();
    private final List<Source> sources = new ArrayList<>();
    private final List<TokenData.Rows> contents = new ArrayList<>();
    private int fromCalibration;

    FileWindows(DataRequest request, Optional<Path> tokenizer, ModelSettings settings, Log log) {
        this.request = request;
        this.tokenizer = tokenizer;
        this.settings = settings;
        this.log = log;
    }

    /**
     * Reads the files of the request.
     *
     * @param vocabulary size of the model's vocabulary
     * @throws UserException when a file cannot be read, does not fit the model, or has too little data
     */
    CalibrationData read(long vocabulary) {
        request.calibration().forEach(file -> contents.add(TokenData.load(file.file(), tokenizer)));
        int length = contents.isEmpty() ? 0 : length(contents);
        List<List<long[]>> windows = new ArrayList<>();
        for (int i = 0; i < contents.size(); i++) {
            Path file = file(i);
            List<long[]> found = windows(file, contents.get(i), length);
            new TokenData(file, found).requireVocabulary(vocabulary);
            windows.add(found);
        }
        choose(windows, length);
        fromCalibration = heldOut.size();
        request.evaluation().ifPresent(file -> readEvaluation(file, length, vocabulary));
        return new CalibrationData(rows, heldOut, sources, request.calibrates());
    }

    /**
     * How often each token occurs in the calibration files that were read, all of their text except what is held out.
     *
     * @param vocabulary size of the model's vocabulary
     */
    long[] counts(long vocabulary) {
        long[] counts = new long[Math.toIntExact(vocabulary)];
        for (TokenData.Rows content : contents) {
            content.fixed.forEach(row -> count(row, 1, counts));
            content.running.forEach(piece -> count(piece.tokens(), 1, counts));
        }
        heldOut.subList(0, fromCalibration).forEach(row -> count(row, -1, counts));
        return counts;
    }

    private static void count(long[] row, int each, long[] counts) {
        for (long id : row) {
            if (id >= 0 && id < counts.length) {
                counts[(int) id] += each;
            }
        }
    }

    private Path file(int i) {
        return request.calibration().get(i).file();
    }

    /**
     * Length of a window in tokens: the requested one, else the common length of all rows of ids, else the usual one.
     */
    private int length(List<TokenData.Rows> contents) {
        if (request.sequenceLength().isPresent()) {
            int length = request.sequenceLength().getAsInt();
            settings.requireLength(length, "windows of --seq-len " + length);
            return length;
        }
        OptionalInt common = OptionalInt.empty();
        for (int i = 0; i < contents.size(); i++) {
            IntSummaryStatistics lengths =
                    contents.get(i).fixed.stream().mapToInt(row -> row.length).summaryStatistics();
            if (lengths.getCount() > 0) {
                int length = Math.min(lengths.getMax(), request.usualLength());
                if (lengths.getMin() < length || common.orElse(length) != length) {
                    throw new UserException(
                            "the rows of %s have %s tokens%s; rows to calibrate on are all of one length, so give --seq-len N to cut them into windows"
                                    .formatted(
                                            file(i),
                                            range(lengths),
                                            lengths.getMin() < length
                                                    ? ""
                                                    : ", and those of another file " + common.getAsInt()));
                }
                settings.requireLength(length, "the rows of " + file(i));
                common = OptionalInt.of(length);
            }
        }
        return common.orElse(settings.fit(request.usualLength()));
    }

    private static String range(IntSummaryStatistics lengths) {
        return lengths.getMin() == lengths.getMax()
                ? Integer.toString(lengths.getMin())
                : lengths.getMin() + " to " + lengths.getMax();
    }

    private List<long[]> windows(Path file, TokenData.Rows content, int length) {
        boolean single = content.fixed.stream().allMatch(row -> row.length < 2) && content.runningTokens() < 2;
        if (length < 2 || single) {
            throw new UserException("no row of %s has 2 tokens; a prediction takes at least 2".formatted(file));
        }
        List<long[]> windows = content.exact(length);
        IntSummaryStatistics lengths =
                content.fixed.stream().mapToInt(row -> row.length).summaryStatistics();
        if (windows.isEmpty()) {
            throw new UserException(
                    lengths.getCount() > 0
                            ? "the rows of %s have %s tokens, fewer than a window of %d; give --seq-len %d or less"
                                    .formatted(file, range(lengths), length, lengths.getMax())
                            : "the text of %s has %d tokens, fewer than a window of %d; give more text, or --seq-len N for shorter windows"
                                    .formatted(file, content.runningTokens(), length));
        }
        long shorter = content.fixed.stream().filter(row -> row.length < length).count();
        if (shorter > 0) {
            log.warn("%d of %d rows of %s are left out, because they have fewer than %d tokens"
                    .formatted(shorter, lengths.getCount(), file, length));
        }
        return windows;
    }

    private void choose(List<List<long[]>> windows, int length) {
        int[] samples = shares(request.sampleCount());
        int[] measured = shares(HELD_OUT);
        SplittableRandom random = new SplittableRandom(request.seed());
        for (int i = 0; i < windows.size(); i++) {
            List<long[]> found = windows.get(i);
            int chosen = Math.min(samples[i], found.size());
            if (chosen < samples[i] && (request.samples().isPresent() || windows.size() > 1)) {
                log.warn("%s has %d windows of %d tokens, fewer than the %d that are its share; all of them are used"
                        .formatted(file(i), found.size(), length, samples[i]));
            }
            int held = 0;
            if (request.evaluation().isEmpty()) {
                held = Math.min(found.size() - chosen, Math.max(1, measured[i]));
                int least = found.size() < 2 ? 0 : (chosen + 9) / 10;
                if (held < least) {
                    held = least;
                    chosen = Math.min(chosen, found.size() - held);
                    log.info(
                            "%d of the %d windows of %s are held out to measure perplexity on; --eval FILE gives other data for that"
                                    .formatted(held, found.size(), file(i)));
                }
            }
            int[] order = shuffled(found.size(), random.split());
            pick(found, order, 0, chosen, rows);
            pick(found, order, chosen, chosen + held, heldOut);
            sources.add(new Source(file(i).toString(), chosen, held));
        }
        requireEnough(length);
    }

    private void requireEnough(int length) {
        if (!rows.isEmpty() && request.evaluation().isEmpty() && heldOut.isEmpty()) {
            throw new UserException(
                    "%s has only 1 window of %d tokens, so none can be held out to measure perplexity on; give more data, --seq-len N for shorter windows, or --eval FILE"
                            .formatted(file(0), length));
        }
    }

    /**
     * Distributes {@code total} in proportion to the weights of the files. Units lost by rounding go to the largest
     * fractions.
     */
    private int[] shares(int total) {
        double sum =
                request.calibration().stream().mapToDouble(WeightedFile::weight).sum();
        double[] exact = request.calibration().stream()
                .mapToDouble(file -> total * (file.weight() / sum))
                .toArray();
        int[] shares = Arrays.stream(exact).mapToInt(share -> (int) share).toArray();
        int remainder = total - Arrays.stream(shares).sum();
        IntStream.range(0, exact.length)
                .boxed()
                .sorted(Comparator.comparingDouble(i -> shares[i] - exact[i]))
                .limit(remainder)
                .forEach(i -> shares[i]++);
        return shares;
    }

    private static int[] shuffled(int size, SplittableRandom random) {
        int[] order = IntStream.range(0, size).toArray();
        for (int i = size - 1; i > 0; i--) {
            int j = random.nextInt(i + 1);
            int swapped = order[i];
            order[i] = order[j];
            order[j] = swapped;
        }
        return order;
    }

    /** Adds the windows at the indices in a range of {@code order}, in the order of the file. */
    private static void pick(List<long[]> windows, int[] order, int from, int to, List<long[]> into) {
        Arrays.stream(order, from, to).sorted().mapToObj(windows::get).forEach(into::add);
    }

    private void readEvaluation(Path file, int length, long vocabulary) {
        TokenData.Rows content = TokenData.load(file, tokenizer);
        OptionalInt window = request.sequenceLength();
        if (window.isEmpty() && content.fixed.isEmpty()) {
            window = OptionalInt.of(length > 0 ? length : settings.fit(request.usualLength()));
        }
        TokenData data = new TokenData(file, content.cut(file, window));
        data.rows().forEach(row -> settings.requireLength(row.length, "rows of " + file));
        data.requireVocabulary(vocabulary);
        heldOut.addAll(data.rows());
        sources.add(new Source(file.toString(), 0, data.rows().size()));
    }
}
