// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compiler;

import io.onnxprune.calibrate.CalibrationOptions;
import io.onnxprune.emit.ModelFolder;
import io.onnxprune.emit.OutputTarget;
import io.onnxprune.eval.DataRequest;
import io.onnxprune.plan.Budget;
import io.onnxprune.recipe.Recipe;
import java.nio.file.Path;
import java.util.Optional;

/**
 * What one run of the compiler is asked to do.
 *
 * @param input the model
 * @param target where the result goes; empty for a dry run
 * @param recipe the passes and their options
 * @param budget how much to remove of what
 * @param plan a plan to apply instead of making one
 * @param planOut where to write the plan
 * @param externalData keep weights outside the model file
 * @param data what to calibrate on, and to measure perplexity and speed on before and after
 * @param calibration memory and work folder
 * @param statistics where statistics of the whole model come from or go
 * @param dumpIr folder for the text form of the model after each pass
 * @param seed of everything random
 * @param threads for work outside the runtime
 */
public record PruneJob(
        ModelFolder input,
        Optional<OutputTarget> target,
        Recipe recipe,
        Budget budget,
        Optional<Path> plan,
        Optional<Path> planOut,
        boolean externalData,
        DataRequest data,
        CalibrationOptions calibration,
        StatisticsFiles statistics,
        Optional<Path> dumpIr,
        long seed,
        int threads) {
    /**
     * Files of statistics.
     *
     * @param in to use in place of what the first step would measure
     * @param out to keep what the first step measures
     */
    public record StatisticsFiles(Optional<Path> in, Optional<Path> out) {
        /** Neither is read or written. */
        public static final StatisticsFiles NONE = new StatisticsFiles(Optional.empty(), Optional.empty());
    }
}
