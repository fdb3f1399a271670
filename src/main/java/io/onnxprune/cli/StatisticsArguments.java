// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import io.onnxprune.calibrate.Statistics;
import io.onnxprune.compiler.PruneJob.StatisticsFiles;
import io.onnxprune.diag.UsageException;
import io.onnxprune.recipe.PlanPasses;
import io.onnxprune.recipe.Recipe;
import java.nio.file.Path;
import java.util.Optional;
import picocli.CommandLine.Option;

/** Options about statistics of the whole model that are kept for other runs. */
final class StatisticsArguments {
    @Option(
            names = "--stats-out",
            paramLabel = "FILE",
            description = "write the statistics of the dense model that the method measures first, for --stats")
    private Path out;

    @Option(
            names = "--stats",
            paramLabel = "FILE",
            description = "read statistics of this model from an earlier --stats-out instead of measuring them")
    private Path in;

    /** The file that is read; null if none is. */
    Path read() {
        return in;
    }

    /**
     * Refuses what would have no effect.
     *
     * @param planned whether a plan is given, so that none is made
     * @throws UsageException naming the option
     */
    void check(Recipe recipe, boolean planned, boolean nothing) {
        if (in != null && out != null) {
            throw new UsageException(
                    "--stats says that nothing is measured which --stats-out could keep; give one of them");
        }
        String option = in != null ? "--stats" : "--stats-out";
        if (in == null && out == null) {
            return;
        }
        if (!PlanPasses.usesStatistics(recipe)) {
            throw new UsageException(
                    option + " is for methods that begin with second moments of the whole model (score metric"
                            + " obs without sequential, sparsify by surgeon), which " + recipe.name()
                            + " does not; leave it out");
        }
        if (planned || nothing) {
            throw new UsageException((planned ? "--plan says already what to keep" : "--ratio 0 removes nothing")
                    + ", so " + option + " has no effect; leave it out");
        }
    }

    /** Checks, before any work, that {@code --stats-out} can be written. */
    void check(Inputs inputs) {
        inputs.checkWritable("--stats-out", out, Statistics::isFile, "holds no statistics");
    }

    StatisticsFiles files() {
        return new StatisticsFiles(Optional.ofNullable(in), Optional.ofNullable(out));
    }
}
