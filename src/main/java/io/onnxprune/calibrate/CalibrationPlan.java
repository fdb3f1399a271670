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
 * How a calibration run is divided: which pieces are run together and how many rows at a time, so that it stays within its
 * memory.
 *
 * @param pieces what is run at once
 * @param rows rows of a batch
 * @param segmentBytes estimate for the largest segment
 * @param boundaryBytes estimate for all values between segments
 */
record CalibrationPlan(List<Piece> pieces, int rows, long segmentBytes, long boundaryBytes) {
    /** Tokens in one run beyond which a larger batch is no faster: the matrices are large enough. */
    private static final int TOKENS = 512;

    /** What fits one buffer of float32. */
    private static final long MAX_ELEMENTS = (Integer.MAX_VALUE - 64) / Float.BYTES;

    /**
     * Divides a run over {@code samples} rows of {@code length} tokens.
     *
     * @param objective what is run, and what that adds to the last piece
     * @param single whether statistics are of single rows, so that a batch is one row
     */
    static CalibrationPlan of(
            DataFlow flow,
            Value tokens,
            Value logits,
            Collection<Tap> taps,
            Objective objective,
            int length,
            boolean single,
            long memory) {
        int samples = objective.rows().size();
        Estimate estimate = new Estimate(new Footprint(flow, tokens), taps, samples, length, logits, objective.bytes());
        List<Piece> smallest = new Partition(flow, logits).pieces();
        int rows = objective.batches() == null
                ? estimate.rows(smallest, single, memory)
                : objective.batches().get(0).length;
        List<Piece> pieces = Partition.join(smallest, piece -> estimate.bytes(piece, rows) <= memory / 2);
        return new CalibrationPlan(pieces, rows, estimate.largest(pieces, rows), estimate.boundaries(pieces));
    }

    /** The same for a run forwards that stops before the smallest last piece, which stays apart. */
    static CalibrationPlan ahead(DataFlow flow, Value tokens, Value logits, int samples, int length, long memory) {
        Estimate estimate = new Estimate(new Footprint(flow, tokens), List.of(), samples, length, logits, rows -> 0);
        List<Piece> smallest = new Partition(flow, logits).pieces();
        int rows = estimate.rows(smallest, false, memory);
        int last = smallest.size() - 1;
        List<Piece> pieces =
                Partition.join(smallest.subList(0, last), piece -> estimate.bytes(piece, rows) <= memory / 2);
        pieces.add(smallest.get(last));
        return new CalibrationPlan(pieces, rows, estimate.largest(pieces, rows), estimate.boundaries(pieces));
    }

    /** The same over {@code pieces} as they are. */
    static CalibrationPlan over(
            List<Piece> pieces,
            DataFlow flow,
            Value tokens,
            Collection<Tap> taps,
            int samples,
            int length,
            long memory) {
        Value end = pieces.get(pieces.size() - 1).output();
        Estimate estimate = new Estimate(new Footprint(flow, tokens), taps, samples, length, end, rows -> 0);
        int rows = estimate.rows(pieces, false, memory);
        return new CalibrationPlan(pieces, rows, estimate.largest(pieces, rows), estimate.boundaries(pieces));
    }

    /** What pieces take in memory when rows of one length go through them. */
    private static final class Estimate {
        private final Footprint footprint;
        private final int samples;
        private final int length;
        private final boolean backward;
        /** Parameters with a sum in their own shape. */
        private final Set<String> parameters = new HashSet<>();
        /** Elements of all sums of an activation. */
        private final Map<String, Long> sums = new HashMap<>();

        private final Value logits;
        /** What comes to the piece that computes the logits, by the rows of a batch. */
        private final ToLongFunction<Integer> atEnd;

        Estimate(
                Footprint footprint,
                Collection<Tap> taps,
                int samples,
                int length,
                Value logits,
                ToLongFunction<Integer> atEnd) {
            this.footprint = footprint;
            this.samples = samples;
            this.length = length;
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
            long[] shape = SegmentGraph.shape(tap);
            long elements = Tensor.elements(shape);
            if (elements > MAX_ELEMENTS) {
                throw new UserException(
                        "\"%s\" has %d channels, and the products of each two of them do not fit the 2 GiB that a sum may take; choose a method that needs no such sums"
                                .formatted(tap.subject(), shape[0]));
            }
            return elements;
        }

        /** Rows of a batch such that no piece takes more than half of the memory, and the last batch is not much smaller. */
        int rows(List<Piece> pieces, boolean single, long memory) {
            int rows = single || footprint.isSingleRow() ? 1 : Math.max(1, Math.min(samples, TOKENS / length));
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
                // The sum and this run's share of it.
                bytes += parameters.contains(weight.name())
                        ? 2L * Float.BYTES * weight.constant().elements()
                        : 0;
            }
            // A sum that many runs add to is in float64 beside that.
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

        /** Values between pieces: all of them for a way back, or one at a time. */
        long boundaries(List<Piece> pieces) {
            double bytes = 0;
            for (Piece piece : pieces.subList(0, pieces.size() - 1)) {
                double value = footprint.bytes(piece.output(), samples, length);
                bytes = backward ? bytes + value : Math.max(bytes, value);
            }
            return (long) bytes;
        }
    }

    /** This plan for a run that another one goes beside, on the same batches and one segment of either at a time. */
    CalibrationPlan beside(CalibrationPlan other) {
        return new CalibrationPlan(
                pieces,
                Math.min(rows, other.rows),
                Math.max(segmentBytes, other.segmentBytes),
                boundaryBytes + other.boundaryBytes);
    }

    /** This plan for a run that keeps further values between segments. */
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

    /** Bytes of the values between segments that stay in memory. */
    long boundaryBudget(long memory) {
        return Math.max(0, memory - segmentBytes);
    }

    void announce(Log log, int samples, int length, long memory) {
        announce(log, samples, length, memory, "");
    }

    /** @param work how often the model is run, to go on with after the number of segments; empty for once */
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
                    "the largest part of the model that cannot be cut takes about %s, more than the %s allowed; fewer"
                            + " tokens a row (--seq-len) take less",
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
