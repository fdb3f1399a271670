// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import io.onnxprune.diag.UsageException;
import io.onnxprune.runtime.RuntimeOptions;
import io.onnxprune.runtime.RuntimeOptions.Precision;
import java.util.Locale;
import picocli.CommandLine.Option;

/** The option about the type of matrix products. */
final class PrecisionArguments {
    /** Types by their names on the command line. */
    enum Type {
        float32,
        tf32,
        bfloat16,
        float16
    }

    @Option(
            names = "--precision",
            paramLabel = "TYPE",
            description = "type of matrix products: float32 (default), tf32 (with --provider cuda); in calibration and"
                    + " training also bfloat16, float16 (not for gradients), which the CPU only rounds to")
    private Type type = Type.float32;

    @Option(names = "--tf32", hidden = true)
    private boolean tf32;

    /** The options of a run with products of this type. */
    RuntimeOptions of(RuntimeOptions options) {
        if (tf32) {
            throw new UsageException("--tf32 is written --precision tf32 now");
        }
        if (type == Type.tf32 && options.provider() == RuntimeOptions.Provider.CPU) {
            throw new UsageException("--precision tf32 has an effect only with --provider cuda; leave it out");
        }
        return options.with(Precision.valueOf(type.name().toUpperCase(Locale.ROOT)));
    }

    /** The options of a run that neither calibrates nor trains. */
    RuntimeOptions ofEvaluation(RuntimeOptions options) {
        RuntimeOptions result = of(options);
        if (result.precision().rounded().isPresent()) {
            throw new UsageException(
                    "eval runs a model in its own types, so --precision " + type + " has no effect; leave it out");
        }
        return result;
    }
}
