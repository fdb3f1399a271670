// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import java.util.LinkedHashMap;
import java.util.Map;
import picocli.CommandLine.Option;

/** The options that say how small or fast the pruned model is to be. */
final class TargetArguments {
    @Option(
            names = "--ratio",
            paramLabel = "R",
            description = "share of the dense model's parameters to prune (default: 0.2), or the sparsity of"
                    + " methods that only make zeros")
    private String ratio;

    @Option(names = "--params", paramLabel = "N", description = "parameters to keep: 1.1B, 700M, 250000")
    private String parameters;

    @Option(names = "--size", paramLabel = "N", description = "bytes to keep: 900MB, 1.5GB")
    private String size;

    @Option(
            names = "--memory-target",
            paramLabel = "N",
            description = "bytes that weights and caches may take together: 900MB; needs --context")
    private String memory;

    @Option(
            names = "--context",
            paramLabel = "N",
            description = "for --memory-target: tokens of the sequence that caches are for")
    private String context;

    @Option(
            names = "--latency",
            paramLabel = "T",
            description = "time that the model may take on this machine: 25ms, 1.5s (docs/targets.md)")
    private String latency;

    @Option(names = "--speedup", paramLabel = "X", description = "how many times faster the model is to be here: 1.5")
    private String speedup;

    @Option(
            names = "--latency-of",
            paramLabel = "WORK",
            description =
                    "for --latency and --speedup: what is timed, prefill:N for a prompt of N tokens or decode:N for"
                            + " one token after N (default: prefill:128)")
    private String latencyOf;

    /** The given options, by their recipe keys. */
    Map<String, String> given() {
        Map<String, String> given = new LinkedHashMap<>();
        given.put("ratio", ratio);
        given.put("params", parameters);
        given.put("size", size);
        given.put("memory-target", memory);
        given.put("context", context);
        given.put("latency", latency);
        given.put("speedup", speedup);
        given.put("latency-of", latencyOf);
        given.values().removeIf(value -> value == null);
        return given;
    }
}
