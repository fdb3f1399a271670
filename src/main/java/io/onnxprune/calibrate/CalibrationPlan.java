package io.onnxprune.calibrate;

import io.onnxprune.calibrate.Partition.Piece;
import io.onnxprune.diag.Log;
import io.onnxprune.ir.Program.Value;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Set;

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

    /**
     * Divides a run over {@code samples} rows of {@code length} tokens.
     *
     * @param single whether statistics are of single rows, so that a batch is one row
     */
    static CalibrationPlan of(
            DataFlow flow,
            Value tokens,
            Value logits,
            Collection<Tap> taps,
            int samples,
            int length,
            boolean single,
            long memory) {
        Footprint footprint = new Footprint(flow, tokens);
        boolean backward = taps.stream().anyMatch(Tap::needsGradients);
        Set<String> summed = new HashSet<>();
        taps.stream().filter(Tap::needsGradients).forEach(tap -> summed.add(tap.subject()));
        List<Piece> smallest = new Partition(flow, logits).pieces();
        int rows = single || footprint.isSingleRow() ? 1 : Math.max(1, Math.min(samples, TOKENS / length));
        while (rows > 1 && largest(smallest, footprint, rows, length, backward, summed) > memory / 2) {
            rows = (rows + 1) / 2;
        }
        int batches = (samples + rows - 1) / rows;
        int even = (samples + batches - 1) / batches;
        List<Piece> pieces = Partition.join(
                smallest, piece -> bytes(piece, footprint, even, length, backward, summed) <= memory / 2);
        long boundary = 0;
        for (Piece piece : pieces.subList(0, pieces.size() - 1)) {
            boundary += (long) footprint.bytes(piece.output(), samples, length);
        }
        return new CalibrationPlan(pieces, even, largest(pieces, footprint, even, length, backward, summed), boundary);
    }

    private static long largest(
            List<Piece> pieces, Footprint footprint, int rows, int length, boolean backward, Set<String> summed) {
        return pieces.stream()
                .mapToLong(piece -> bytes(piece, footprint, rows, length, backward, summed))
                .max()
                .orElse(0);
    }

    private static long bytes(
            Piece piece, Footprint footprint, int rows, int length, boolean backward, Set<String> summed) {
        Set<Value> weights = footprint.weights(piece);
        long bytes = Footprint.weightBytes(weights) + footprint.activations(piece, rows, length, backward);
        for (Value weight : weights) {
            // The sum and this run's share of it.
            bytes += summed.contains(weight.name())
                    ? 2L * Float.BYTES * weight.constant().elements()
                    : 0;
        }
        return bytes;
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
        long held = Math.min(boundaryBytes, boundaryBudget(memory));
        String spilled =
                boundaryBytes > held ? String.format(Locale.ROOT, " and %s on disk", bytes(boundaryBytes - held)) : "";
        log.info(String.format(
                Locale.ROOT,
                "calibration runs %d x %d tokens through %d segment%s, %d row%s at a time: about %s of memory%s",
                samples,
                length,
                pieces.size(),
                pieces.size() == 1 ? "" : "s",
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

    private static String bytes(long bytes) {
        return bytes >= 1_000_000_000L
                ? String.format(Locale.ROOT, "%.1f GB", bytes * 1e-9)
                : String.format(Locale.ROOT, "%d MB", Math.max(1, Math.round(bytes * 1e-6)));
    }
}
