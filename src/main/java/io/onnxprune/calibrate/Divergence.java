// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.autodiff.DivergenceLoss;
import io.onnxprune.autodiff.SquaredErrorLoss;
import io.onnxprune.calibrate.ActivationStore.Budget;
import io.onnxprune.calibrate.ActivationStore.Place;
import io.onnxprune.calibrate.Partition.Piece;
import io.onnxprune.diag.Log;
import io.onnxprune.ir.GraphBuilder;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.lower.Renaming;
import io.onnxprune.runtime.RuntimeTensor;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.ToLongFunction;
import java.util.stream.IntStream;

/**
 * The KL divergence of the predictions of a model from those of a reference, another form of the same dense model. The
 * loss of a row is the mean over positions of KL(reference ‖ model). Of models without a vocabulary it is the squared
 * error of the outputs. Of the reference only the input of its last piece
 * is stored. That piece runs beside the last segment of the model, so the logits of the reference never leave ONNX
 * Runtime.
 */
public final class Divergence extends Objective implements AutoCloseable {
    /** The reference after a run up to its last piece. */
    private record Reference(
            Calibrator calibrator,
            Segment last,
            Batches batches,
            SegmentRunner runner,
            Footprint footprint,
            Piece end) {}

    private final Reference reference;
    private final List<long[]> rows;
    private final List<int[]> batches;
    /** The position of the first batch among those of the reference. */
    private final int start;

    private Divergence(Reference reference, List<long[]> rows, List<int[]> batches, int start) {
        this.reference = reference;
        this.rows = rows;
        this.batches = batches;
        this.start = start;
    }

    /**
     * Runs {@code reference} over {@code rows}.
     *
     * @param model the model to measure, for rows of the same length and with the same vocabulary; it limits the
     *     number of rows in a batch
     * @param rows token ids, each row of the length that the calibrators were made for
     * @throws io.onnxprune.diag.UserException when a run fails or values do not fit on disk
     */
    public static Divergence from(Calibrator reference, Calibrator model, List<long[]> rows) {
        return from(reference, model, rows, rows.size());
    }

    /**
     * Runs {@code reference} over {@code rows} in batches of at most {@code most} rows.
     *
     * @see #from(Calibrator, Calibrator, List)
     */
    public static Divergence from(Calibrator reference, Calibrator model, List<long[]> rows, int most) {
        DataFlow flow = reference.flow(List.of());
        CalibrationPlan plan = CalibrationPlan.ahead(reference.workload(flow, rows.size(), reference.memory()));
        List<int[]> batches =
                plan.beside(model.planOfGradients(rows.size())).withRows(most).batches(rows.size());
        List<Segment> segments = Segment.of(flow, plan.pieces());
        Batches referenceBatches = new Batches(flow, reference.graph(), rows, batches);
        Budget budget = RunMemory.boundaries(reference.runtime(), reference.options(), reference.memory())
                .part(4);
        ActivationStore store = new ActivationStore(budget, reference.options().workFolder());
        SegmentRunner runner =
                new SegmentRunner(reference.runtime(), flow, referenceBatches, store, reference.weights(), 0);
        int last = segments.size() - 1;
        try (Log.Progress progress = reference.log().progress("calibration", referenceBatches.tokens() * last)) {
            for (Segment segment : segments.subList(0, last)) {
                runner.forward(SegmentRequest.advance(segment).withReleased(segment.inputs()), progress);
            }
        } catch (RuntimeException e) {
            runner.close();
            throw e;
        }
        Footprint footprint = new Footprint(flow, reference.rowsInput());
        return new Divergence(
                new Reference(
                        reference,
                        segments.get(last),
                        referenceBatches,
                        runner,
                        footprint,
                        plan.pieces().get(last)),
                rows,
                batches,
                0);
    }

    /**
     * The objective on the first rows only: complete batches with at least {@code count} rows in all. It must not be
     * used after this object is closed.
     */
    public Objective first(int count) {
        return parts(count).get(0);
    }

    /**
     * The objective on one part of the rows after another: complete batches with at least {@code count} rows in all, and
     * fewer in the last part. They must not be used after this object is closed.
     */
    public List<Objective> parts(int count) {
        List<Objective> parts = new ArrayList<>();
        int next = 0;
        for (int row = 0; next < batches.size(); ) {
            int firstRow = row;
            int firstBatch = next;
            List<int[]> own = new ArrayList<>();
            while (next < batches.size() && row - firstRow < count) {
                own.add(IntStream.of(batches.get(next)).map(i -> i - firstRow).toArray());
                row += batches.get(next++).length;
            }
            parts.add(new Divergence(reference, rows.subList(firstRow, row), own, start + firstBatch));
        }
        return parts;
    }

    @Override
    List<long[]> rows() {
        return rows;
    }

    @Override
    List<int[]> batches() {
        return batches;
    }

    @Override
    long heldBytes() {
        return reference.runner.boundaries().heldBytes();
    }

    @Override
    ToLongFunction<Integer> bytes() {
        Calibrator calibrator = reference.calibrator;
        long weights = Footprint.weightBytes(reference.footprint.weights(reference.end));
        // The logits, log-probabilities and summands of the reference are alive at the same time.
        return rows -> weights
                + reference.footprint.activations(reference.end, rows, calibrator.length(), false)
                + (long) (4 * reference.footprint.bytes(calibrator.end(), rows, calibrator.length()));
    }

    @Override
    Part append(End end, GraphBuilder builder, List<ValueInfo> inputs) {
        Segment last = reference.last;
        Map<String, String> renamed = new HashMap<>();
        last.constants().forEach((name, value) -> {
            Tensor tensor = reference.calibrator.weights().getOrDefault(name, value.constant());
            renamed.put(name, end.contents(name) == tensor ? name : builder.constant(tensor));
        });
        Set<Value> read = new LinkedHashSet<>(last.given());
        read.addAll(last.taken());
        if (last.input() != null) {
            read.add(last.input());
        }
        for (Value value : read) {
            String name = builder.freshName();
            renamed.put(value.name(), name);
            inputs.add(Segment.declare(name, reference.calibrator.trace().dtype(value)));
        }
        for (Op op : last.ops()) {
            op.node().outputs().stream()
                    .filter(name -> !name.isEmpty())
                    .forEach(name -> renamed.computeIfAbsent(name, key -> builder.freshName()));
        }
        for (Op op : last.ops()) {
            Node node = Renaming.all(op.node(), renamed);
            builder.add(node.withName(node.outputs().get(0)));
        }
        String output = end.segment().output().name();
        String target = renamed.get(last.output().name());
        Feeds feeds = (unused, batch) -> feeds(start + batch, renamed);
        if (end.model().graph().logits().isEmpty()) {
            SquaredErrorLoss loss = SquaredErrorLoss.append(output, target, builder);
            return new Part(loss.rows(), loss.gradient(), feeds);
        }
        DivergenceLoss loss = DivergenceLoss.append(output, target, builder);
        return new Part(loss.rows(), loss.gradient(), feeds);
    }

    private Map<String, RuntimeTensor> feeds(int batch, Map<String, String> renamed) {
        Segment last = reference.last;
        Map<String, RuntimeTensor> feeds = new HashMap<>();
        reference.batches.feeds(last, batch).forEach((name, tensor) -> feeds.put(renamed.get(name), tensor));
        if (last.input() != null) {
            String input = last.input().name();
            feeds.put(renamed.get(input), reference.runner.boundaries().get(new Place(input, batch)));
        }
        return feeds;
    }

    @Override
    public void close() {
        reference.runner.close();
    }
}
