// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import io.onnxprune.calibrate.Statistics;
import io.onnxprune.measure.StatisticsProvider;
import java.nio.file.Path;
import java.util.Optional;
import picocli.CommandLine.Option;

/** Options about statistics of the dense model that are kept for other runs. */
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

    /** Checks that the file of {@code --stats-out} can be written, before any work is done. */
    void check() {
        SideFile.check("--stats-out", out, Statistics::isFile, "holds no statistics");
    }

    StatisticsProvider.Files files() {
        return new StatisticsProvider.Files(Optional.ofNullable(in), Optional.ofNullable(out));
    }
}
