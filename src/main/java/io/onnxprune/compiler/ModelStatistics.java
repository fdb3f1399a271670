// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compiler;

import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.Statistics;
import io.onnxprune.calibrate.Statistics.Origin;
import io.onnxprune.calibrate.Tap;
import io.onnxprune.compiler.PruneJob.StatisticsFiles;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.eval.CalibrationData;
import io.onnxprune.rewrite.PrunedState;
import java.nio.file.Path;
import java.util.Collection;
import java.util.List;
import java.util.Optional;

/**
 * Statistics of what a run prunes: measured, or for the whole model from a file. What was measured of one state of the model is
 * kept until another state is measured, so that passes which look at the same one share it.
 */
final class ModelStatistics implements AutoCloseable {
    private static final String PASS = "statistics";

    private final StatisticsFiles files;
    private final String hash;
    private final int draws;
    private final PassClock clock;
    private final Log log;
    /** What the file to read says of itself; null without one. */
    private final Origin given;

    private List<long[]> rows = List.of();
    private PrunedState state;
    private Statistics last;

    /**
     * Statistics for a model.
     *
     * @param hash of the model's file
     * @param draws how often gradients are taken of tokens that the model draws
     * @throws UserException if there is a file to read that is damaged or of another model
     */
    ModelStatistics(StatisticsFiles files, String hash, int draws, PassClock clock, Log log) {
        this.files = files;
        this.hash = hash;
        this.draws = draws;
        this.clock = clock;
        this.log = log;
        this.given = files.in().map(this::origin).orElse(null);
    }

    private Origin origin(Path file) {
        Origin origin = Statistics.origin(file);
        if (!hash.equalsIgnoreCase(origin.model())) {
            throw new UserException("the statistics %s are of another model (SHA-256 %s, not %s)"
                    .formatted(file, origin.model(), hash));
        }
        return origin;
    }

    /**
     * Says on which rows is measured.
     *
     * @throws UserException if they are not as long as those of the file
     */
    void over(Optional<CalibrationData> data) {
        rows = data.map(CalibrationData::rows).orElse(List.of());
        if (given != null
                && data.isPresent()
                && data.get().calibrates()
                && data.get().length() != given.length()) {
            throw new UserException(
                    "the statistics %s are of rows of %d tokens, but this run calibrates on rows of %d; add --seq-len %d"
                            .formatted(
                                    files.in().orElseThrow(),
                                    given.length(),
                                    data.get().length(),
                                    given.length()));
        }
    }

    /** Tokens of a row. */
    int length() {
        return given == null ? rows.get(0).length : given.length();
    }

    /** The source of statistics of the model of {@code measured}. */
    Statistics.Source of(PrunedState measured) {
        return (model, taps) -> {
            if (model.hasOtherWeights()) {
                return clock.timed(PASS, () -> Statistics.measure(model, rows(), taps));
            }
            if (!measured.equals(state) || !last.taps().containsAll(taps)) {
                Statistics next = clock.timed(PASS, () -> measure(measured, model, taps));
                close();
                state = measured;
                last = next;
            }
            return last.shared();
        };
    }

    private Statistics measure(PrunedState measured, Calibrator model, Collection<Tap> taps) {
        boolean first = state == null
                && measured.plan().removesNothing(measured.structure())
                && measured.updates().isEmpty();
        if (first && given != null) {
            return given(model, taps);
        }
        if (first && files.out().isPresent()) {
            Path file = files.out().get();
            Origin origin = new Origin(hash, rows.size(), length(), fisher(taps));
            Statistics found = Statistics.measure(model, rows, taps, file, origin);
            log.info("statistics of %d x %d tokens are in %s".formatted(origin.rows(), origin.length(), file));
            return found;
        }
        return Statistics.measure(model, rows(), taps);
    }

    private List<long[]> rows() {
        if (rows.isEmpty()) {
            throw new UserException(
                    "--stats holds what the first pass measures, but another one measures more; add --calibration");
        }
        return rows;
    }

    private Statistics given(Calibrator model, Collection<Tap> taps) {
        Path file = files.in().orElseThrow();
        String fisher = fisher(taps);
        if (!fisher.equals(Origin.NONE) && !fisher.equals(given.fisher())) {
            throw new UserException(
                    "the statistics %s have gradients of kind \"%s\", but the method takes \"%s\"; measure them anew"
                            .formatted(file, given.fisher(), fisher));
        }
        log.info("statistics of %d x %d tokens come from %s".formatted(given.rows(), given.length(), file));
        return Statistics.read(file, model, taps);
    }

    private String fisher(Collection<Tap> taps) {
        if (taps.stream().noneMatch(Tap::needsGradients)) {
            return Origin.NONE;
        }
        return draws > 0 ? Origin.TRUE : Origin.EMPIRICAL;
    }

    @Override
    public void close() {
        if (last != null) {
            last.close();
        }
        last = null;
    }
}
