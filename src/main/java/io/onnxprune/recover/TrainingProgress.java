// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import java.util.ArrayList;
import java.util.List;

/**
 * How far a training is.
 *
 * @param lowest the best held-out loss so far
 * @param misses looks since then
 * @param curve all looks so far, the first before any step
 */
record TrainingProgress(double lowest, int misses, List<EvalPoint> curve) {
    TrainingProgress {
        curve = List.copyOf(curve);
    }

    /** Steps that are done. */
    int step() {
        return curve.get(curve.size() - 1).step();
    }

    /** Whether nothing since was better than what there was at first. */
    boolean isAtItsBeginning() {
        return lowest == curve.get(0).heldOut();
    }

    TrainingProgress after(EvalPoint look) {
        List<EvalPoint> longer = new ArrayList<>(curve);
        longer.add(look);
        return look.heldOut() < lowest
                ? new TrainingProgress(look.heldOut(), 0, longer)
                : new TrainingProgress(lowest, misses + 1, longer);
    }
}
