// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.calibrate.ActivationStore.Budget;
import io.onnxprune.calibrate.Calibrator.Summary;
import io.onnxprune.diag.OutOfMemoryException;
import io.onnxprune.runtime.OnnxRuntime;
import java.util.Collection;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;

/** The memory of runs: of this process, or of the device that sessions work in. */
final class RunMemory {
    /** The number of tokens in one run beyond which a larger batch is not faster, because the matrices are large enough. */
    private static final int BATCH_TOKENS = 512;

    /** The same on a device, which has more arithmetic units than the CPU. */
    private static final int DEVICE_BATCH_TOKENS = 8192;

    /** The share of free device memory that a run may use. Allocators lose some between tensors. */
    private static final double FREE_SHARE = 0.85;

    /** The work of a run: some statistics, whose sums it passes on. */
    interface Work {
        Summary on(CalibrationRun run, List<Tap> taps, SumSink sink);
    }

    private RunMemory() {}

    /** The limit of the options. On a device without a limit it is most of what is free. */
    static long limit(OnnxRuntime runtime, CalibrationOptions options) {
        if (runtime.device().isEmpty()) {
            return options.memory();
        }
        return options.deviceMemory() > 0
                ? options.deviceMemory()
                : (long) (FREE_SHARE * runtime.device().get().freeBytes());
    }

    /** The values between segments may take {@code bytes} where sessions work. Others go to this process. */
    static Budget boundaries(OnnxRuntime runtime, CalibrationOptions options, long bytes) {
        return runtime.device().isEmpty() ? new Budget(0, bytes) : new Budget(bytes, options.memory());
    }

    /** The number of tokens of a batch, as far as memory allows. */
    static int batchTokens(OnnxRuntime runtime) {
        return runtime.device().isPresent() ? DEVICE_BATCH_TOKENS : BATCH_TOKENS;
    }

    /**
     * Does the work of a run. If the memory of a device does not suffice, because it is shared or an estimate was too
     * low, the work starts again with half of it, for the statistics that were not passed on yet.
     *
     * @param sink receives the sums that {@code work} passes on
     */
    static Summary smallerIfNeeded(
            Calibrator calibrator, Objective objective, Collection<Tap> taps, SumSink sink, Work work) {
        long limit = calibrator.memory();
        Set<Tap> left = new LinkedHashSet<>(taps);
        while (true) {
            CalibrationRun run = calibrator.begin(objective, left, limit);
            try (run) {
                return work.on(run, List.copyOf(left), (tap, sum) -> {
                    left.remove(tap);
                    sink.accept(tap, sum);
                });
            } catch (OutOfMemoryException e) {
                if (calibrator.runtime().device().isEmpty() || run.isSmallest()) {
                    throw e;
                }
                calibrator.runtime().closeIdle();
                limit /= 2;
                calibrator
                        .log()
                        .warn("%s; the run starts again with %s on the device, in smaller segments"
                                .formatted(e.getMessage(), CalibrationPlan.bytes(limit)));
            }
        }
    }
}
