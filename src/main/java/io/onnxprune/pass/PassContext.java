// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.pass;

import io.onnxprune.diag.Log;
import io.onnxprune.ir.CheckpointFile;
import io.onnxprune.measure.StatisticsProvider;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.runtime.OnnxRuntime;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;

/**
 * What a pass may use beside the state: the same for all passes of a run but for the place in it.
 *
 * @param settings of the run
 * @param data of the run
 * @param statistics measures the model on the calibration rows
 * @param runtime runs models
 * @param position of the pass in the run
 * @param log takes what is said on the way
 */
public record PassContext(
        RunSettings settings,
        RunData data,
        StatisticsProvider statistics,
        OnnxRuntime runtime,
        Position position,
        Log log) {
    /**
     * The position of a pass in a run.
     *
     * @param schedule all passes of the run, in order
     * @param index of the pass
     * @param checkpoint for a pass that saves how far it is within itself; empty where a run keeps no checkpoints
     */
    public record Position(List<Scheduled> schedule, int index, Optional<CheckpointFile> checkpoint) {
        /** The pass itself with its place. */
        public Scheduled current() {
            return schedule.get(index);
        }

        /** The passes behind it, in order. */
        public List<Pass> later() {
            return schedule.subList(index + 1, schedule.size()).stream()
                    .map(Scheduled::pass)
                    .toList();
        }

        /** All passes of the run. */
        public List<Pass> all() {
            return schedule.stream().map(Scheduled::pass).toList();
        }
    }

    /** The structures that the next pass which decides about structures may prune; heads and FFN channels if there is none. */
    public PruneSet prune() {
        return position.schedule.subList(position.index, position.schedule.size()).stream()
                .map(scheduled -> scheduled.pass().prunes())
                .flatMap(Optional::stream)
                .findFirst()
                .orElseGet(() -> position.all().stream()
                        .map(Pass::prunes)
                        .flatMap(Optional::stream)
                        .findFirst()
                        .orElseGet(PruneSet::standard));
    }

    /** The folder for files that last as long as the run, and for checkpoints. */
    public Path workFolder() {
        return settings.calibration().workFolder();
    }

    public PassContext withData(RunData changed) {
        return new PassContext(settings, changed, statistics, runtime, position, log);
    }

    public PassContext withLog(Log changed) {
        return new PassContext(settings, data, statistics, runtime, position, changed);
    }

    public PassContext at(Position changed) {
        return new PassContext(settings, data, statistics, runtime, changed, log);
    }
}
