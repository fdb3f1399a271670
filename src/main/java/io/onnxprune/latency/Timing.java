// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.latency;

import io.onnxprune.diag.CacheFolder;
import io.onnxprune.diag.Fingerprint;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Structure;
import io.onnxprune.eval.CausalLm;
import io.onnxprune.eval.Latency;
import io.onnxprune.eval.Workload;
import io.onnxprune.ir.Model;
import io.onnxprune.plan.Allocation;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.Currency;
import io.onnxprune.plan.ParameterCount;
import io.onnxprune.plan.Plan;
import io.onnxprune.rewrite.PrunedState;
import io.onnxprune.runtime.OnnxRuntime;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;

/**
 * Times of one model on this machine, before and after pruning. It learns from every plan that is timed how much of what products
 * save the whole model saves, and remembers what plans showed about memory.
 */
public final class Timing {
    /** A target is met if the measured time differs from it by no more than this share. */
    public static final double TOLERANCE = 0.05;

    /** A factor outside of this says that what was saved is lost in noise. */
    private static final double MOST_FACTOR = 50;

    private final OnnxRuntime runtime;
    private final Path model;
    private final Log log;
    private final Map<Object, Currency> measured = new HashMap<>();
    private Optional<TimeTable> table = Optional.empty();

    /**
     * Times nothing yet.
     *
     * @param model the file of the dense model
     */
    public Timing(OnnxRuntime runtime, Path model, Log log) {
        this.runtime = runtime;
        this.model = model;
        this.log = log;
    }

    /** A currency for a budget that names a workload; {@link #in} has to make it one that can be counted in. */
    public static Currency currency(Workload work) {
        return TimeCurrency.unmeasured(work);
    }

    /** Whether a currency counts seconds. */
    public static boolean isTime(Currency currency) {
        return currency instanceof TimeCurrency;
    }

    /** What is timed for a budget; empty if its target is no time. */
    public static Optional<Workload> work(Budget budget) {
        return budget.currency() instanceof TimeCurrency time ? Optional.of(time.work()) : Optional.empty();
    }

    /**
     * A budget in what is known about its currency now. If nothing is known of a time, the dense model and its products are timed
     * first.
     *
     * @param structure of the dense model
     * @throws UserException if the model cannot do the work
     */
    public Budget in(Budget budget, Structure structure) {
        Optional<Workload> work = work(budget);
        if (work.isPresent() && !measured.containsKey(work.get())) {
            measured.put(work.get(), first(budget, work.get(), structure));
        }
        return budget.in(measured.getOrDefault(key(budget), budget.currency()));
    }

    /** What a currency is about, whatever is known of it. */
    private static Object key(Budget budget) {
        return work(budget)
                .map(work -> (Object) work)
                .orElseGet(() -> budget.currency().context());
    }

    /**
     * Takes over what is known better of a budget's currency.
     *
     * @return the budget
     */
    public Budget learnt(Budget budget) {
        measured.put(key(budget), budget.currency());
        return budget;
    }

    /** Times the dense model, its products, and the smallest model that the budget allows, which tells what products save. */
    private TimeCurrency first(Budget budget, Workload work, Structure structure) {
        double dense = seconds(model, work);
        TimeCurrency currency = new TimeCurrency(work, table(), dense, 1);
        Budget products = budget.in(currency);
        Plan smallest = Allocation.smallest(structure, products, "");
        double predicted =
                products.measure(ParameterCount.of(structure, currency).under(smallest));
        double least = seconds(PrunedState.of(structure, smallest, Map.of()).model(), work);
        log.info(String.format(
                Locale.ROOT,
                "%s takes %s; with everything gone that may go, it takes %s",
                work,
                currency.text(dense),
                currency.text(least)));
        saved();
        double factor = (dense - least) / (dense - predicted);
        if (!(factor > 1 / MOST_FACTOR && factor < MOST_FACTOR)) {
            throw new UserException(String.format(
                    Locale.ROOT,
                    "pruning %s saves no time that can be planned: the model takes %s, the smallest one %s, and products alone"
                            + " would save %s; prune other structures, or ask for a ratio",
                    budget.prune(),
                    currency.text(dense),
                    currency.text(least),
                    currency.text(dense - predicted)));
        }
        return new TimeCurrency(work, table(), dense, factor);
    }

    private TimeTable table() {
        if (table.isEmpty()) {
            String machine = String.join(
                    ", ",
                    runtime.options().provider().toString(),
                    "ONNX Runtime " + runtime.version(),
                    runtime.device()
                            .filter(device -> !device.isHost())
                            .map(device -> device.name())
                            .orElseGet(Timing::processor),
                    runtime.options().precision().title(),
                    threads() + " threads");
            Path file = CacheFolder.folder("times")
                    .resolve(Fingerprint.of(List.<Object>of(machine), List.of()).substring(0, 16) + ".txt");
            table = Optional.of(new TimeTable(file, machine, new GraphTimer(runtime), log));
        }
        return table.get();
    }

    private int threads() {
        int asked = runtime.options().threads();
        return asked > 0 ? asked : Runtime.getRuntime().availableProcessors();
    }

    /** The name of the processor, where the system tells it. */
    private static String processor() {
        try (var lines = Files.lines(Path.of("/proc/cpuinfo"))) {
            return lines.filter(line -> line.startsWith("model name"))
                    .map(line -> line.substring(line.indexOf(':') + 1).strip())
                    .findFirst()
                    .orElse(System.getProperty("os.arch"));
        } catch (IOException | java.io.UncheckedIOException e) {
            return System.getProperty("os.arch");
        }
    }

    /** Keeps what was timed, and says so. */
    public void saved() {
        table.ifPresent(times -> {
            int count = times.timed();
            times.save();
            if (count > 0) {
                log.info("timed products of " + count + " shapes; their times are kept for later runs");
            }
        });
    }

    /**
     * The time of a model file.
     *
     * @return seconds
     */
    public double seconds(Path file, Workload work) {
        try (CausalLm lm = CausalLm.open(runtime, file, log)) {
            return Latency.seconds(lm, work, log);
        }
    }

    /**
     * The time of a model in memory.
     *
     * @return seconds
     */
    public double seconds(Model pruned, Workload work) {
        try (CausalLm lm = CausalLm.open(runtime, pruned)) {
            return Latency.seconds(lm, work, log);
        }
    }

    /**
     * Learns from the measured time of a plan.
     *
     * @param predicted what {@code budget} gave for it, in seconds
     * @param seconds what it took
     * @return the budget that predicts this; empty if it is within the tolerance of the target, or nothing can be learnt
     */
    public Optional<Budget> corrected(Budget budget, double predicted, double seconds) {
        TimeCurrency known = (TimeCurrency) budget.currency();
        double target = budget.target(new ParameterCount.Size(0, 0, known.dense()));
        double factor = known.factor() * (known.dense() - seconds) / (known.dense() - predicted);
        boolean met = Math.abs(seconds - target) <= TOLERANCE * target;
        boolean learns = factor > 1 / MOST_FACTOR && factor < MOST_FACTOR;
        if (met || !learns) {
            return Optional.empty();
        }
        TimeCurrency better = new TimeCurrency(known.work(), known.table(), known.dense(), factor);
        log.info(String.format(
                Locale.ROOT,
                "the plan takes %s, not %s: a model saves %.2f times what its products save, so the plan is made again",
                known.text(seconds),
                known.number(predicted),
                factor));
        return Optional.of(learnt(budget.in(better)));
    }
}
