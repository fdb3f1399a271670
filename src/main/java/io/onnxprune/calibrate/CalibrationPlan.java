// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.calibrate.Partition.Piece;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.function.ToLongFunction;

/**
 * The division of a calibration run into segments and batches, so that it stays within its memory.
 *
 * @param pieces the pieces of the model that are run at once
 * @param rows number of rows of a batch
 * @param segmentBytes estimated bytes of the largest segment
 * @param boundaryBytes estimated bytes of all values between segments
 */
record CalibrationPlan(List<Piece> pieces, int rows, long segmentBytes, long boundaryBytes) {
    /** The number of elements that fit one buffer of float32. */
    private static final long MAX_ELEMENTS = (Integer.MAX_VALUE - 64) / Float.BYTES;

    /**
     * The model and the rows of a run.
     *
     * @param flow the data flow of the model
     * @param tokens the input with the token ids
     * @param logits the output with the logits
     * @param samples number of rows
     * @param length number of tokens in a row
     * @param memory bytes that the run may use
     * @param batchTokens the number of tokens in one run beyond which a larger batch is not faster
     */
    record Workload(DataFlow flow, Value tokens, Value logits, int samples, int length, long memory, int batchTokens) {
        private Estimate estimate(Collection<Tap> taps, Value end, ToLongFunction<Integer> atEnd) {
            return new Estimate(this, taps, end, atEnd);
        }

        private List<Piece> smallestPieces() {
            return new Partition(flow, logits).pieces();
        }
    }

    /**
     * Divides a run that computes statistics.
     *
     * @param taps the statistics
     * @param objective the loss; its additions to the last piece are counted
     * @param single whether statistics are of single rows, so that a batch is one row
     */
    static CalibrationPlan of(Workload workload, Collection<Tap> taps, Objective objective, boolean single) {
        long memory = workload.memory;
        Estimate estimate = workload.estimate(taps, workload.logits, objective.bytes());
        List<Piece> smallest = workload.smallestPieces();
        int rows = objective.batches() == null
                ? estimate.rows(smallest, single, memory)
                : objective.batches().get(0).length;
        List<Piece> pieces = Partition.join(smallest, piece -> estimate.bytes(piece, rows) <= memory / 2);
        return new CalibrationPlan(pieces, rows, estimate.largest(pieces, rows), estimate.boundaries(pieces));
    }

    /** Divides a forward run that stops before the smallest last piece. This piece is not joined with others. */
    static CalibrationPlan ahead(Workload workload) {
        long memory = workload.memory;
        Estimate estimate = workload.estimate(List.of(), workload.logits, rows -> 0);
        List<Piece> smallest = workload.smallestPieces();
        int rows = estimate.rows(smallest, false, memory);
        int last = smallest.size() - 1;
        List<Piece> pieces =
                Partition.join(smallest.subList(0, last), piece -> estimate.bytes(piece, rows) <= memory / 2);
        pieces.add(smallest.get(last));
        return new CalibrationPlan(pieces, rows, estimate.largest(pieces, rows), estimate.boundaries(pieces));
    }

    /** Divides a run over {@code pieces}, which are not joined, into batches. */
    static CalibrationPlan over(List<Piece> pieces, Workload workload, Collection<Tap> taps) {
        Value end = pieces.get(pieces.size() - 1).output();
        Estimate estimate = workload.estimate(taps, end, rows -> 0);
        int rows = estimate.rows(pieces, false, workload.memory);
        return new CalibrationPlan(pieces, rows, estimate.largest(pieces, rows), estimate.boundaries(pieces));
    }

    /** Estimates the memory of pieces that run rows of equal length. */
    private static final class Estimate {
        private final Footprint footprint;
        private final int samples;
        private final int length;
        private final int batchTokens;
        private final boolean backward;
        /** The parameters whose statistics have their own shape. */
        private final Set<String> parameters = new HashSet<>();
        /** The number of elements of all sums of each activation. */
        private final Map<String, Long> sums = new HashMap<>();

        private final Value logits;
        /** The additional bytes of the piece that computes the logits, by the number of rows of a batch. */
        private final ToLongFunction<Integer> atEnd;

        Estimate(Workload workload, Collection<Tap> taps, Value logits, ToLongFunction<Integer> atEnd) {
            this.footprint = new Footprint(workload.flow, workload.tokens);
            this.samples = workload.samples;
            this.length = workload.length;
            this.batchTokens = workload.batchTokens;
            this.logits = logits;
            this.atEnd = atEnd;
            this.backward = taps.stream().anyMatch(Tap::needsGradients);
            for (Tap tap : taps) {
                if (tap instanceof Tap.Gradient || tap instanceof Tap.SquaredGradient) {
                    parameters.add(tap.subject());
                } else {
                    sums.merge(tap.subject(), elements(tap), Long::sum);
                }
            }
        }

        private static long elements(Tap tap) {
            long[] shape = SumShapes.of(tap);
            long elements = Tensor.elements(shape);
            if (elements > MAX_ELEMENTS) {
                throw new UserException(
                        "\"%s\" has %d channels, and its second moment exceeds the limit of 2 GiB for a sum; choose a method without second moments"
                                .formatted(tap.subject(), shape[0]));
            }
            return elements;
        }

        /**
         * The number of rows of a batch. No piece may use more than half of the memory, and the last batch should not
         * be much smaller than the others.
         */
        int rows(List<Piece> pieces, boolean single, long memory) {
            int rows = single || footprint.isSingleRow() ? 1 : Math.max(1, Math.min(samples, batchTokens / length));
            while (rows > 1 && largest(pieces, rows) > memory / 2) {
                rows = (rows + 1) / 2;
            }
            int batches = (samples + rows - 1) / rows;
            return (samples + batches - 1) / batches;
        }

        long largest(List<Piece> pieces, int rows) {
            return pieces.stream().mapToLong(piece -> bytes(piece, rows)).max().orElse(0);
        }

        long bytes(Piece piece, int rows) {
            Set<Value> weights = footprint.weights(piece);
            long bytes = Footprint.weightBytes(weights) + footprint.activations(piece, rows, length, backward);
            bytes += piece.output() == logits ? atEnd.applyAsLong(rows) : 0;
            for (Value weight : weights) {
                // This counts the sum and the term that one run adds.
                bytes += parameters.contains(weight.name())
                        ? 2L * Float.BYTES * weight.constant().elements()
                        : 0;
            }
            // A sum over many runs has a float64 copy too.
            long perElement = 2L * Float.BYTES + (samples > WideSum.RUNS * (long) rows ? Double.BYTES : 0);
            bytes += piece.input() == null
                    ? 0
                    : perElement * sums.getOrDefault(piece.input().name(), 0L);
            for (Op op : piece.ops()) {
                for (Value value : op.outputs()) {
                    bytes += value == null ? 0 : perElement * sums.getOrDefault(value.name(), 0L);
                }
            }
            return bytes;
        }

        /** Bytes of the values between pieces. A backward pass needs all of them, a forward pass one at a time. */
        long boundaries(List<Piece> pieces) {
            double bytes = 0;
            for (Piece piece : pieces.subList(0, pieces.size() - 1)) {
                double value = footprint.bytes(piece.output(), samples, length);
                bytes = backward ? bytes + value : Math.max(bytes, value);
            }
            return (long) bytes;
        }
    }

    /**
     * This plan for a run beside another one. Both have the same batches, and only one segment of either runs at a
     * time.
     */
    CalibrationPlan beside(CalibrationPlan other) {
        return new CalibrationPlan(
                pieces,
                Math.min(rows, other.rows),
                Math.max(segmentBytes, other.segmentBytes),
                boundaryBytes + other.boundaryBytes);
    }

    /** This plan with batches of at most {@code most} rows. */
    CalibrationPlan withRows(int most) {
        return new CalibrationPlan(pieces, Math.min(rows, most), segmentBytes, boundaryBytes);
    }

    /**
     * Whether no plan has smaller pieces or batches.
     *
     * @param fixed whether the objective determines the batches
     */
    boolean isSmallest(Workload workload, boolean fixed) {
        return (rows == 1 || fixed)
                && pieces.size() == workload.smallestPieces().size();
    }

    /** This plan with further bytes of values between segments. */
    CalibrationPlan keeping(long bytes) {
        return new CalibrationPlan(pieces, rows, segmentBytes, boundaryBytes + bytes);
    }

    /** The row numbers of each batch. */
    List<int[]> batches(int samples) {
        List<int[]> batches = new ArrayList<>();
        for (int start = 0; start < samples; start += rows) {
            int[] batch = new int[Math.min(rows, samples - start)];
            for (int i = 0; i < batch.length; i++) {
                batch[i] = start + i;
            }
            batches.add(batch);
        }
        return batches;
    }

    /** The bytes of values between segments that may be in memory. */
    long boundaryBudget(long memory) {
        return Math.max(0, memory - segmentBytes);
    }

    /** The bytes of weights that may stay in the memory of a device between sessions. */
    long weightBudget(long memory) {
        return Math.max(0, memory - segmentBytes - boundaryBytes);
    }

    void announce(Log log, int samples, int length, long memory) {
        announce(log, samples, length, memory, "");
    }

    /**
     * Logs the division.
     *
     * @param work text about the number of forward passes, appended to the number of segments; empty for one pass
     */
    void announce(Log log, int samples, int length, long memory, String work) {
        long held = Math.min(boundaryBytes, boundaryBudget(memory));
        String spilled =
                boundaryBytes > held ? String.format(Locale.ROOT, " and %s on disk", bytes(boundaryBytes - held)) : "";
        log.info(String.format(
                Locale.ROOT,
                "calibration runs %d x %d tokens through %d segment%s%s, %d row%s at a time: about %s of memory%s",
                samples,
                length,
                pieces.size(),
                pieces.size() == 1 ? "" : "s",
                work,
                rows,
                rows == 1 ? "" : "s",
                bytes(segmentBytes + held),
                spilled));
        if (segmentBytes > memory) {
            log.warn(String.format(
                    Locale.ROOT,
                    "the largest indivisible part of the model needs about %s, more than the %s allowed; use fewer"
                            + " tokens in a row (--seq-len)",
                    bytes(segmentBytes),
                    bytes(memory)));
        }
    }

    static String bytes(long bytes) {
        return bytes >= 1_000_000_000L
                ? String.format(Locale.ROOT, "%.1f GB", bytes * 1e-9)
                : String.format(Locale.ROOT, "%d MB", Math.max(1, Math.round(bytes * 1e-6)));
    }
}
