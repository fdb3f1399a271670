// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.diag.Log;
import java.util.Iterator;
import java.util.List;

/**
 * Shows runs of unequal cost as one progress display. It counts tokens, weighted by the cost of a run relative to the
 * entire model.
 */
final class WeightedProgress implements AutoCloseable {
    private final Iterator<Double> runs;
    private final Log.Progress progress;
    private double done;
    private long shown;

    /**
     * Creates a display at zero.
     *
     * @param runs the cost of each run, in order, relative to a run of the entire model
     * @param tokens number of tokens in each run
     */
    WeightedProgress(List<Double> runs, long tokens, Log log) {
        this.runs = runs.iterator();
        this.progress = log.progress("calibration", Math.round(total(runs) * tokens));
    }

    static double total(List<Double> runs) {
        return runs.stream().mapToDouble(Double::doubleValue).sum();
    }

    /** The progress display of the next run. */
    Log.Progress next() {
        double share = runs.next();
        return new Log.Progress() {
            @Override
            public void step(long tokens) {
                done += share * tokens;
                progress.step((long) done - shown);
                shown = (long) done;
            }

            @Override
            public void close() {}
        };
    }

    @Override
    public void close() {
        progress.close();
    }
}
