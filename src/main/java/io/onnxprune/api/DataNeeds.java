// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import io.onnxprune.pass.Fact;
import io.onnxprune.pass.Pass;
import io.onnxprune.pass.Pass.Effect;
import io.onnxprune.pass.Pass.Moments;
import io.onnxprune.pass.Scheduled;
import io.onnxprune.plan.PruneSet;
import java.util.List;

/** What the passes of a run need of data, beside a file of statistics of the dense model. */
final class DataNeeds {
    private final List<Pass> measuring;
    private final boolean onlyMoments;

    /** The needs of the passes of {@code schedule}. */
    DataNeeds(List<Scheduled> schedule) {
        this.measuring = schedule.stream()
                .map(Scheduled::pass)
                .filter(pass -> pass.requires().contains(Fact.ROWS))
                .toList();
        this.onlyMoments = measuresOnlyMoments(schedule);
    }

    /** Whether any pass measures on rows. */
    boolean rows() {
        return !measuring.isEmpty();
    }

    /** Whether the first measurement is of second moments of the dense model, which a file may hold. */
    boolean beginsWithMoments() {
        return rows() && measuring.get(0).moments() != Moments.NONE;
    }

    /** Whether second moments of the dense model are all that is measured. */
    boolean onlyMoments() {
        return onlyMoments;
    }

    /** A second measurement is of another state if the model has changed, or lost layers or blocks. */
    private boolean measuresOnlyMoments(List<Scheduled> schedule) {
        boolean dense = true;
        boolean deep = false;
        for (Scheduled scheduled : schedule) {
            Pass pass = scheduled.pass();
            if (pass.requires().contains(Fact.ROWS)
                    && (!dense || pass.moments() == Moments.NONE || deep && pass.effect() == Effect.CHANGES_MODEL)) {
                return false;
            }
            deep |= pass.prunes().filter(DataNeeds::isDeep).isPresent();
            dense &= pass.effect() == Effect.NONE;
        }
        return rows();
    }

    private static boolean isDeep(PruneSet prune) {
        return prune.layers() || prune.blocks();
    }
}
