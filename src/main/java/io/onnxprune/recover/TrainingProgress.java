// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import java.util.ArrayList;
import java.util.List;

/**
 * The progress of a training.
 *
 * @param lowest lowest held-out loss so far
 * @param sinceBest number of evaluations since then
 * @param curve all evaluations so far, the first before any step
 */
record TrainingProgress(double lowest, int sinceBest, List<EvalPoint> curve) {
    TrainingProgress {
        curve = List.copyOf(curve);
    }

    /** Number of steps taken. */
    int step() {
        return curve.get(curve.size() - 1).step();
    }

    /** Whether any evaluation was better than the first. */
    boolean hasImproved() {
        return lowest != curve.get(0).heldOut();
    }

    /** The progress after another evaluation. */
    TrainingProgress after(EvalPoint point) {
        List<EvalPoint> longer = new ArrayList<>(curve);
        longer.add(point);
        return point.heldOut() < lowest
                ? new TrainingProgress(point.heldOut(), 0, longer)
                : new TrainingProgress(lowest, sinceBest + 1, longer);
    }
}
