package io.onnxprune.calibrate;

import io.onnxprune.calibrate.ActivationStore.Place;
import io.onnxprune.calibrate.Partition.Piece;
import io.onnxprune.diag.Log;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.lower.Lowering;
import io.onnxprune.runtime.HostTensor;
import java.util.Collection;
import java.util.List;

/**
 * One model, cut into the smallest pieces, and how far it has been run: what the last piece that was run handed on is at
 * hand for every batch.
 */
final class PieceWalk implements AutoCloseable {
    private final Calibrator calibrator;
    private final DataFlow flow;
    private final List<Piece> pieces;
    private final List<Segment> segments;
    private SegmentRunner runner;
    private int done;

    PieceWalk(Calibrator calibrator) {
        this.calibrator = calibrator;
        this.flow = calibrator.flow(List.of());
        this.pieces = new Partition(flow, calibrator.logits()).pieces();
        this.segments = Segment.of(flow, pieces);
    }

    Calibrator calibrator() {
        return calibrator;
    }

    DataFlow flow() {
        return flow;
    }

    List<Piece> pieces() {
        return pieces;
    }

    /** What the walk needs if these statistics are gathered on the way. */
    CalibrationPlan plan(Collection<Tap> taps, int samples) {
        return CalibrationPlan.over(
                pieces,
                flow,
                calibrator.tokens(),
                taps,
                samples,
                calibrator.length(),
                calibrator.options().memory());
    }

    /**
     * Begins at the tokens.
     *
     * @param budget bytes of the values between pieces that may be held in memory
     */
    void begin(List<long[]> rows, List<int[]> batches, long budget) {
        runner = new SegmentRunner(
                calibrator.runtime(),
                flow,
                new Batches(flow, calibrator.decoder(), rows, batches),
                new ActivationStore(budget, calibrator.options().workFolder()),
                Held.NOTHING);
    }

    SegmentRunner runner() {
        return runner;
    }

    /** Pieces that were run and whose output was handed on. */
    int done() {
        return done;
    }

    /** Runs the next piece for these statistics alone. */
    void capture(Collection<Tap> taps, Counterpart counterpart, Log.Progress progress) {
        runner.forward(segments.get(done), taps, counterpart, false, true, progress);
    }

    /** Runs the next piece and goes on behind it. */
    void advance(Log.Progress progress) {
        runner.forward(segments.get(done), List.of(), null, true, false, progress);
        done++;
    }

    /** What the last piece that was run handed on. */
    HostTensor value(int batch) {
        return runner.boundaries().get(new Place(pieces.get(done - 1).output().name(), batch));
    }

    /**
     * What tells the value at the end of a piece from others in any form of one model: its name, or that of its node where
     * lowering made the value up; null where that has none either.
     */
    String key(int piece) {
        Value output = pieces.get(piece).output();
        if (!Lowering.isNew(output.name())) {
            return "value " + output.name();
        }
        String node = output.producer().node().name();
        return Lowering.isNew(node) || node.isEmpty()
                ? null
                : "result " + output.producer().outputs().indexOf(output) + " of node " + node;
    }

    /** Extent of the last axis of the value at the end of a piece. */
    int width(int piece) {
        long[] shape = flow.trace().shape(pieces.get(piece).output(), 0);
        return (int) shape[shape.length - 1];
    }

    @Override
    public void close() {
        if (runner != null) {
            runner.close();
        }
    }
}
