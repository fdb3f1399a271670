// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.calibrate.ActivationStore.Budget;
import io.onnxprune.calibrate.ActivationStore.Place;
import io.onnxprune.calibrate.Partition.Piece;
import io.onnxprune.diag.Log;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.lower.Lowering;
import io.onnxprune.runtime.RuntimeTensor;
import java.util.Collection;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** Runs a model piece by piece. The output of the last finished piece is stored for every batch. */
final class PieceExecutor implements AutoCloseable {
    private final Calibrator calibrator;
    private final DataFlow flow;
    private final List<Piece> pieces;
    private final List<Segment> segments;
    private final Map<Op, LoweredLinear> linears;
    private SegmentRunner runner;
    private int done;
    /** The stored boundary of the next piece, from a run of it for statistics; null for none. */
    private RecomputeBoundary kept;

    PieceExecutor(Calibrator calibrator) {
        this.calibrator = calibrator;
        this.flow = calibrator.flow(List.of());
        this.pieces = new Partition(flow, calibrator.end()).pieces();
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

    /** The linear layer that an application computes, or null. */
    LoweredLinear linear(Op op) {
        return linears.get(op);
    }

    /** The division of the run into batches if these statistics are measured. */
    CalibrationPlan plan(Collection<Tap> taps, int samples) {
        CalibrationPlan.Workload workload = calibrator.workload(flow, samples, calibrator.memory());
        return CalibrationPlan.over(pieces, workload, taps);
    }

    /**
     * Starts a run before the first piece.
     *
     * @param rows token ids
     * @param batches the row numbers of each batch
     * @param budget bytes of the values between pieces that may be in memory
     * @param weightBudget bytes of weights that may stay in the memory of a device between sessions
     */
    void begin(List<long[]> rows, List<int[]> batches, Budget budget, long weightBudget) {
        runner = new SegmentRunner(
                calibrator.runtime(),
                flow,
                new Batches(flow, calibrator.graph(), rows, batches),
                new ActivationStore(budget, calibrator.options().workFolder()),
                calibrator.weights(),
                weightBudget);
    }

    SegmentRunner runner() {
        return runner;
    }

    /** The number of finished pieces. */
    int done() {
        return done;
    }

    /**
     * Runs the next piece only for statistics. If an earlier run of it stored a boundary, starts from there.
     *
     * @param reference the activation to measure errors against; null if no tap needs it
     * @param boundary the boundary to store for further runs of the piece; null for none
     */
    void capture(
            Collection<Tap> taps, ReferenceActivation reference, RecomputeBoundary boundary, Log.Progress progress) {
        SegmentRequest request = SegmentRequest.capture(segments.get(done), taps, reference);
        if (kept != null) {
            request = request.withGiven(kept.values());
        } else if (boundary != null) {
            request = request.withKept(boundary.values()).withYields(boundary.yields());
        }
        runner.forward(request, progress);
        kept = kept == null ? boundary : kept;
    }

    /** Replaces the contents of a constant from now on. */
    void replace(String constant, Tensor contents) {
        runner.replace(constant, contents);
        if (kept != null && kept.constants().contains(constant)) {
            runner.dropKept(kept.values());
            kept = null;
        }
    }

    /** Runs the next piece and finishes it. */
    void advance(Log.Progress progress) {
        Segment segment = segments.get(done);
        SegmentRequest request = SegmentRequest.advance(segment);
        Set<Value> released = new LinkedHashSet<>(segment.inputs());
        if (kept != null) {
            Set<Value> yields = new LinkedHashSet<>(segment.yielded());
            yields.removeAll(kept.yields());
            released.addAll(kept.values());
            request = request.withGiven(kept.values()).withYields(yields);
        }
        runner.forward(request.withReleased(released), progress);
        kept = null;
        done++;
    }

    /**
     * The boundary from which a piece can be recomputed after changes to the weights of {@code layers}; null where that
     * saves nothing.
     */
    RecomputeBoundary boundary(int piece, Set<Op> layers) {
        RecomputeBoundary boundary = RecomputeBoundary.of(segments.get(piece), flow, layers);
        return boundary != null && work(boundary.rest()) < work(piece) ? boundary : null;
    }

    /** Bytes of the values at a boundary. */
    long bytes(RecomputeBoundary boundary, int samples) {
        Footprint footprint = new Footprint(flow, calibrator.rowsInput());
        double bytes = 0;
        for (Value value : boundary.values()) {
            bytes += footprint.bytes(value, samples, calibrator.length());
        }
        return (long) bytes;
    }

    /** Multiplications for each token in the linear layers of all pieces. */
    long work() {
        return pieces.stream().mapToLong(piece -> work(piece.ops())).sum();
    }

    /** Multiplications for each token in the linear layers of a piece. They are the measure of its cost. */
    long work(int piece) {
        return work(pieces.get(piece).ops());
    }

    /** Multiplications for each token in the linear layers among {@code ops}. */
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

    /** The output of the last finished piece for a batch. */
    RuntimeTensor value(int batch) {
        return runner.boundaries().get(new Place(pieces.get(done - 1).output().name(), batch));
    }

    /**
     * The identity of the output of a piece across different forms of one model. It is the name of the value, or the
     * name of its node where lowering created the value; null where lowering created both.
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

    /** The size of the last axis of the output of a piece. */
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
