// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import io.onnxprune.diag.UsageException;
import io.onnxprune.runtime.RuntimeOptions;
import java.nio.file.Path;
import java.util.Locale;
import java.util.Optional;
import picocli.CommandLine.Option;

/** Options about the runtime that models run on. */
final class RuntimeArguments {
    /** Execution providers by their names on the command line. */
    enum Provider {
        cpu,
        cuda
    }

    @Option(
            names = "--provider",
            paramLabel = "cpu|cuda",
            description = "execution provider of ONNX Runtime (default: cpu)")
    private Provider provider = Provider.cpu;

    @Option(names = "--device", paramLabel = "N", description = "GPU number (default: 0)")
    private int device;

    @Option(names = "--threads", paramLabel = "N", description = "threads (default: all cores)")
    private int threads;

    @Option(
            names = "--ort-library",
            paramLabel = "FILE",
            description = "another libonnxruntime to use instead of the bundled one")
    private Path library;

    /** Options with float32 products. */
    RuntimeOptions options() {
        if (threads < 0 || device < 0) {
            throw new UsageException(
                    threads < 0
                            ? "--threads takes 1 or more, or 0 for all cores, not " + threads
                            : "--device takes the number of a GPU, 0 or more, not " + device);
        }
        return new RuntimeOptions(
                RuntimeOptions.Provider.valueOf(provider.name().toUpperCase(Locale.ROOT)),
                device,
                threads,
                Optional.ofNullable(library),
                RuntimeOptions.Precision.FLOAT32);
    }

    int threads() {
        return threads > 0 ? threads : Runtime.getRuntime().availableProcessors();
    }
}
