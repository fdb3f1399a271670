// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.calibrate.ActivationStore.Place;
import io.onnxprune.calibrate.Partition.Piece;
import io.onnxprune.diag.Log;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.lower.Lowering;
import io.onnxprune.runtime.HostTensor;
import java.util.Collection;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * One model, cut into the smallest pieces, and how far it has been run: what the last piece that was run handed on is at
 * hand for every batch.
 */
final class PieceExecutor implements AutoCloseable {
    private final Calibrator calibrator;
    private final DataFlow flow;
    private final List<Piece> pieces;
    private final List<Segment> segments;
    private final Map<Op, LoweredLinear> linears;
    private SegmentRunner runner;
    private int done;
    /** What was kept of the next piece when it was run for statistics; null for nothing. */
    private RecomputeBoundary kept;

    PieceExecutor(Calibrator calibrator) {
        this.calibrator = calibrator;
        this.flow = calibrator.flow(List.of());
        this.pieces = new Partition(flow, calibrator.logits()).pieces();
        this.segments = Segment.of(flow, pieces);
        this.linears = LoweredLinears.byOp(flow);
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

    /** The product that an application computes, or null. */
    LoweredLinear linear(Op op) {
        return linears.get(op);
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
                calibrator.weights());
    }

    SegmentRunner runner() {
        return runner;
    }

    /** Pieces that were run and whose output was handed on. */
    int done() {
        return done;
    }

    /**
     * Runs the next piece for these statistics alone, from where an earlier run of it left off if that is known.
     *
     * @param frontier what to keep for further runs of the piece; null for nothing
     */
    void capture(
            Collection<Tap> taps, ReferenceActivation counterpart, RecomputeBoundary frontier, Log.Progress progress) {
        SegmentRequest task = SegmentRequest.capture(segments.get(done), taps, counterpart);
        if (kept != null) {
            task = task.withGiven(kept.values());
        } else if (frontier != null) {
            task = task.withKept(frontier.values()).withYields(frontier.yields());
        }
        runner.forward(task, progress);
        kept = kept == null ? frontier : kept;
    }

    /** Takes new contents for a constant from now on. */
    void replace(String constant, Tensor contents) {
        runner.replace(constant, contents);
        if (kept != null && kept.constants().contains(constant)) {
            runner.dropKept(kept.values());
            kept = null;
        }
    }

    /** Runs the next piece and goes on behind it. */
    void advance(Log.Progress progress) {
        Segment segment = segments.get(done);
        SegmentRequest task = SegmentRequest.advance(segment);
        Set<Value> released = new LinkedHashSet<>(segment.inputs());
        if (kept != null) {
            Set<Value> yields = new LinkedHashSet<>(segment.yielded());
            yields.removeAll(kept.yields());
            released.addAll(kept.values());
            task = task.withGiven(kept.values()).withYields(yields);
        }
        runner.forward(task.withReleased(released), progress);
        kept = null;
        done++;
    }

    /** Where a piece can be taken up again when weights of these products have changed, or null where that saves nothing. */
    RecomputeBoundary frontier(int piece, Set<Op> products) {
        RecomputeBoundary frontier = RecomputeBoundary.of(segments.get(piece), flow, products);
        return frontier != null && work(frontier.rest()) < work(piece) ? frontier : null;
    }

    /** Bytes of what is kept at a frontier. */
    long bytes(RecomputeBoundary frontier, int samples) {
        Footprint footprint = new Footprint(flow, calibrator.tokens());
        double bytes = 0;
        for (Value value : frontier.values()) {
            bytes += footprint.bytes(value, samples, calibrator.length());
        }
        return (long) bytes;
    }

    /** Multiplications for each token in the products of all pieces. */
    long work() {
        return pieces.stream().mapToLong(piece -> work(piece.ops())).sum();
    }

    /** Multiplications for each token in the products of a piece, which is what a run of it is taken to cost. */
    long work(int piece) {
        return work(pieces.get(piece).ops());
    }

    /** The same for some applications. */
    long work(Collection<Op> ops) {
        long work = 0;
        for (Op op : ops) {
            LoweredLinear linear = linears.get(op);
            work += linear == null
                    ? 0
                    : (long) linear.input().width() * linear.output().width();
        }
        return work;
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
