// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.diag.Log;
import java.util.Iterator;
import java.util.List;

/** Shows runs of unequal cost as one progress display, which counts tokens that went through a whole model. */
final class WeightedProgress implements AutoCloseable {
    private final Iterator<Double> runs;
    private final Log.Progress progress;
    private double done;
    private long shown;

    /**
     * A display that no run has contributed to.
     *
     * @param runs what each run costs, in order, as a share of what the whole model costs
     * @param tokens that go through each run
     */
    WeightedProgress(List<Double> runs, long tokens, Log log) {
        this.runs = runs.iterator();
        this.progress = log.progress("calibration", Math.round(total(runs) * tokens));
    }

    static double total(List<Double> runs) {
        return runs.stream().mapToDouble(Double::doubleValue).sum();
    }

    /** What the next run is to report its tokens to. */
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
