// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.pass;

import io.onnxprune.diag.Log;
import io.onnxprune.plan.PruneSet;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.Supplier;

/**
 * Tells before a run how long it will take, if that is worth telling: passes count their operations, which are divided by the
 * {@link Speed} of the machine at that moment. After each step of a repeat block the measured time tells how
 * long the other steps will take.
 */
final class Forecast {
    /** What takes less is over before the estimate is read. */
    private static final double WORTH_SECONDS = 10;

    private final List<Scheduled> schedule;
    private final List<Cost> costs;
    private final Log log;
    /** Both kinds of operations count alike until the speed is known. */
    private Speed speed = new Speed(1, 1);

    private long start;
    private int first;

    private Forecast(List<Scheduled> schedule, List<Cost> costs, Log log) {
        this.schedule = schedule;
        this.costs = costs;
        this.log = log;
    }

    /**
     * A forecast for a run.
     *
     * @param prune the structures that may be pruned
     * @param tokens that go through the model in each pass over the data; 0 where nothing is measured
     */
    static Forecast of(List<Scheduled> schedule, DenseModel dense, PruneSet prune, long tokens, Log log) {
        CostModel model = CostModel.of(dense, prune, tokens);
        return new Forecast(
                schedule,
                schedule.stream()
                        .map(each -> tokens == 0 ? Cost.NONE : each.pass().cost(model))
                        .toList(),
                log);
    }

    /** Tells what is to come when {@code done} passes are done. The speed is measured only if it is needed. */
    void begin(int done, Supplier<Speed> measured) {
        first = done;
        start = System.nanoTime();
        Cost all = total(done);
        if (all.flops() > 0) {
            speed = measured.get();
            begin(all, speed);
        }
    }

    /** The cost of all passes but the first {@code done}. One step uses the disk that the step before gives free. */
    Cost total(int done) {
        Cost all = Cost.NONE;
        Map<Integer, Long> disk = new HashMap<>();
        for (int i = done; i < costs.size(); i++) {
            all = all.then(costs.get(i));
            disk.merge(schedule.get(i).step(), costs.get(i).disk(), Long::sum);
        }
        return new Cost(
                all.model(),
                all.algebra(),
                all.memory(),
                disk.values().stream().mapToLong(Long::longValue).max().orElse(0));
    }

    /** Tells what is to come. */
    void begin(Cost all, Speed speed) {
        double seconds = speed.seconds(all);
        if (seconds >= WORTH_SECONDS) {
            log.info(
                    "%d passes of about %s in all; matrices of the widest linear layer take %s of memory beside --memory, statistics and new weights %s of disk"
                            .formatted(schedule.size() - first, time(seconds), bytes(all.memory()), bytes(all.disk())));
        }
    }

    /** Tells after the last pass of a step how long the steps behind it will take. */
    void done(int index) {
        Scheduled last = schedule.get(index);
        boolean ends = last.step() < last.steps() && schedule.get(index + 1).step() != last.step();
        double counted = seconds(first) - seconds(index + 1);
        if (ends && counted > 0) {
            double seconds = (System.nanoTime() - start) * 1e-9;
            double left = seconds * seconds(index + 1) / counted;
            if (seconds + left >= WORTH_SECONDS) {
                log.info("step %d of %d is done; about %s for the passes left"
                        .formatted(last.step(), last.steps(), time(left)));
            }
        }
    }

    private double seconds(int done) {
        return speed.seconds(total(done));
    }

    /** A time as {@code 12 s}, {@code 3 min} or {@code 2.5 h}. */
    static String time(double seconds) {
        if (seconds < 100) {
            return String.format(Locale.ROOT, "%.0f s", Math.max(1, seconds));
        }
        return seconds < 100 * 60
                ? String.format(Locale.ROOT, "%.0f min", seconds / 60)
                : String.format(Locale.ROOT, "%.1f h", seconds / 3600);
    }

    private static String bytes(long bytes) {
        return bytes >= 1_000_000_000L
                ? String.format(Locale.ROOT, "%.1f GB", bytes * 1e-9)
                : String.format(Locale.ROOT, "%d MB", Math.max(1, Math.round(bytes * 1e-6)));
    }
}
