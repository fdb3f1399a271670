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
record Course(double lowest, int misses, List<Look> curve) {
    Course {
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

    Course after(Look look) {
        List<Look> longer = new ArrayList<>(curve);
        longer.add(look);
        return look.heldOut() < lowest ? new Course(look.heldOut(), 0, longer) : new Course(lowest, misses + 1, longer);
    }
}
