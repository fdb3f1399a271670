// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import io.onnxprune.diag.Log;
import io.onnxprune.dims.StateSize;
import io.onnxprune.dims.Structure;
import io.onnxprune.eval.Workload;
import io.onnxprune.ir.Graph;
import io.onnxprune.latency.Timing;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.pass.PruningState;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.Currency;
import io.onnxprune.plan.ParameterCount;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalLong;

/**
 * What became of a target of memory or time.
 *
 * @param currency what all amounts are counted in: bytes or seconds
 * @param work what was timed, or the tokens that caches are for
 * @param dense amount of the dense model
 * @param asked amount that was asked for
 * @param predicted amount that the plan gives
 * @param measured amount of the file that was written; empty for a dry run
 */
public record ReachedTarget(
        Currency currency, String work, double dense, double asked, double predicted, OptionalDouble measured) {
    /**
     * Measures the result of a run.
     *
     * @param file the file that was written
     * @param log is warned if a time was missed
     */
    static ReachedTarget of(Budget requested, PruningState state, Optional<Path> file, Log log) {
        Budget budget = state.dense().measured(requested);
        Structure structure = state.dense().structure();
        ParameterCount count = ParameterCount.of(structure, budget.currency());
        Optional<Workload> time = Timing.work(budget);
        OptionalLong context = budget.currency().context();
        OptionalDouble measured = file.isEmpty()
                ? OptionalDouble.empty()
                : OptionalDouble.of(
                        time.isPresent()
                                ? state.dense().timing().orElseThrow().seconds(file.get(), time.get())
                                : bytes(file.get(), structure, context.orElseThrow()));
        ReachedTarget reached = new ReachedTarget(
                budget.currency(),
                time.map(Workload::toString).orElseGet(() -> "context " + context.orElseThrow()),
                budget.measure(count.dense()),
                budget.target(count.dense()),
                budget.measure(count.under(state.plan())),
                measured);
        if (time.isPresent() && measured.isPresent() && measured.getAsDouble() > reached.longest()) {
            log.warn("the result takes " + reached.currency.text(measured.getAsDouble()) + " where "
                    + reached.currency.number(reached.asked)
                    + " were asked for; other work on this machine changes times, so run again when it is idle");
        }
        return reached;
    }

    /** Bytes of the constants that a file stores, and of its states by their declared shapes. */
    private static long bytes(Path file, Structure structure, long context) {
        Graph graph = ModelReader.read(file).graph();
        return ParameterCount.storedBytes(graph) + StateSize.bytes(graph, context, structure.analysis());
    }

    private double longest() {
        return asked * (1 + Timing.TOLERANCE);
    }

    /** The share of the dense model's amount that was to be pruned. */
    double ratio() {
        return 1 - asked / dense;
    }

    /** What was asked for, predicted and measured, as a sentence. */
    public String sentence() {
        return String.format(
                Locale.ROOT,
                "asked for %s (%s; dense %s), predicted %s%s",
                currency.text(asked),
                work,
                currency.number(dense),
                currency.number(predicted),
                measured.isPresent() ? ", measured " + currency.number(measured.getAsDouble()) : "");
    }

    Map<String, Object> toJson() {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("unit", Timing.isTime(currency) ? "seconds" : currency.unit());
        json.put("work", work);
        json.put("dense", dense);
        json.put("asked", asked);
        json.put("predicted", predicted);
        json.put("measured", measured.isPresent() ? measured.getAsDouble() : null);
        return json;
    }
}
