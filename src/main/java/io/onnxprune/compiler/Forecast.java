// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compiler;

import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Structure;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.recipe.Pass;
import io.onnxprune.recipe.PassKind;
import io.onnxprune.recipe.PlanPasses;
import io.onnxprune.recipe.Recipe;
import java.util.LinkedHashSet;
import java.util.Locale;
import java.util.Set;

/**
 * What a run in steps will take, said before it begins if it is worth it: operations are counted, and divided by how fast this
 * machine multiplies matrices just now. After each step it is measured how long the others will take.
 *
 * <p>Counted per step, with T tokens through products of n inputs and m outputs: 2nmT forwards, 4nmT more for gradients of
 * activations (with the second forward pass of their segments) and 6nmT for those of weights; 2n²T for XᵀX and 2m²T for DᵀD;
 * 3n³ + 2nm(n+m) for the removal of units one by one, n³/3 + 2n²m for weights that make up for them. Attention, norms and a model
 * that becomes smaller are left out: it is an order of magnitude.
 */
final class Forecast {
    /** What takes less is over before the estimate is read. */
    private static final double WORTH_SECONDS = 10;

    private static final int PROBE = 512;
    private static final long PROBE_NANOS = 200_000_000;

    private final Log log;
    private final int steps;
    private final double stepFlops;
    private final double lastFlops;
    private final long largest;
    private final long onDisk;
    private long start;
    private int first;

    /**
     * A forecast for a recipe.
     *
     * @param prune what may be removed
     * @param tokens that go through the model in each pass over the data
     */
    Forecast(Recipe recipe, Structure structure, LinearLayers consumers, PruneSet prune, int steps, long tokens, Log log) {
        this.log = log;
        this.steps = steps;
        Set<LinearLayer> readers = new LinkedHashSet<>();
        for (Dimension dimension : structure.dimensions()) {
            if (dimension.isPrunable() && prune.roles().contains(dimension.role())) {
                readers.addAll(consumers.of(dimension));
            }
        }
        double products = 0;
        for (LinearLayer consumer : consumers.all()) {
            products += (double) consumer.inputs() * consumer.outputs();
        }
        double forward = 2 * products * tokens;
        Pass score = recipe.pass(PassKind.SCORE);
        Pass compensate = recipe.pass(PassKind.COMPENSATE);
        Pass refit = recipe.pass(PassKind.REFIT);
        Pass correct = recipe.pass(PassKind.CORRECT);
        boolean sequential = PlanPasses.isSequential(score);
        boolean obs = PlanPasses.isObs(score);
        boolean ofLoss = obs && !sequential && PlanPasses.isOfLoss(score);
        boolean solves = PlanPasses.update(compensate).isPresent()
                || PlanPasses.kronecker(compensate).isPresent();
        boolean again = PlanPasses.update(compensate).isPresent() || sequential;
        double step = PlanPasses.resumes(recipe) ? 4 * forward : ofLoss ? 3 * forward : sequential ? 0 : forward;
        step += again ? forward : 0;
        double refitting = 2 * forward;
        long widest = 0;
        long disk = 0;
        for (LinearLayer reader : readers) {
            double n = reader.inputs();
            double m = reader.outputs();
            double moments = 2 * n * n * tokens;
            double solving = n * n * n / 3 + 2 * n * n * m;
            step += obs && !sequential ? moments + (ofLoss ? 2 * m * m * tokens : 0) : 0;
            step += again ? moments : 0;
            step += obs ? 3 * n * n * n + 2 * n * m * (n + m) : 0;
            step += solves ? solving : 0;
            refitting += moments + 2 * n * m * tokens + solving;
            widest = Math.max(widest, (long) (Double.BYTES * (4 * n * n + (ofLoss ? m * m : 0) + 2 * n * m)));
            disk += (long) (Float.BYTES * ((obs && !sequential ? n * n : 0) + (ofLoss ? m * m : 0)));
            // New weights, the notes about them, and the notes before until they are replaced.
            disk += solves ? (long) (3 * Float.BYTES * n * m) : 0;
        }
        boolean everyStep = refit != null && refit.flag("every-step");
        this.stepFlops = step + (everyStep ? refitting : 0);
        this.lastFlops = (refit != null && !everyStep ? refitting : 0)
                + (correct == null ? 0 : correct.integer("steps") * 8 * forward);
        this.largest = widest;
        this.onDisk = disk;
    }

    /** Says what is to come, and begins to measure it, when {@code done} steps are done. */
    void begin(int done) {
        begin(done, rate());
    }

    /**
     * The same on a machine of so many operations a second.
     *
     * @return how many seconds it will take
     */
    double begin(int done, double rate) {
        double each = stepFlops / rate;
        double all = each * (steps - done) + lastFlops / rate;
        first = done;
        start = System.nanoTime();
        if (all >= WORTH_SECONDS) {
            log.info(
                    "%s of about %s, about %s in all; matrices of the widest product take %s of memory beside --memory, statistics and new weights %s of disk"
                            .formatted(
                                    steps - done == 1 ? "one step" : steps - done + " steps",
                                    time(each),
                                    time(all),
                                    bytes(largest),
                                    bytes(onDisk)));
        }
        return all;
    }

    /** Says after a step how long the others will take if they take as long as those before. */
    void done(int step) {
        double each = (System.nanoTime() - start) * 1e-9 / (step - first);
        double left = each * (steps - step);
        if (step < steps && each * (steps - first) >= WORTH_SECONDS) {
            log.info("step %d of %d is done; about %s for the others".formatted(step, steps, time(left)));
        }
    }

    /** Floating-point operations a second in a product of matrices of float64. */
    private static double rate() {
        try (Matrix a = Matrix.zeros(PROBE, PROBE)) {
            for (int i = 0; i < PROBE; i++) {
                a.set(i, i, 1);
            }
            double best = Double.POSITIVE_INFINITY;
            // The best of several: what else runs on the machine comes and goes.
            for (long end = System.nanoTime() + PROBE_NANOS; System.nanoTime() < end; ) {
                long begun = System.nanoTime();
                Blas.product(a, a).close();
                best = Math.min(best, (System.nanoTime() - begun) * 1e-9);
            }
            return 2.0 * PROBE * PROBE * PROBE / best;
        }
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
