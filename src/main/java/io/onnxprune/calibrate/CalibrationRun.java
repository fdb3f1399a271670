// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.calibrate.ActivationStore.Place;
import io.onnxprune.calibrate.Calibrator.Summary;
import io.onnxprune.calibrate.SegmentGraph.Carry;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.OutOfMemoryException;
import io.onnxprune.diag.UserException;
import io.onnxprune.eval.NonFinite;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.Outputs;
import io.onnxprune.runtime.RuntimeTensor;
import io.onnxprune.runtime.Session;
import java.util.AbstractList;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.BooleanSupplier;
import java.util.function.Consumer;

/** One pass over all rows: forward through the segments, then backward if gradients are needed. */
final class CalibrationRun implements AutoCloseable {
    private final Calibrator calibrator;
    private final DataFlow flow;
    private final Objective objective;
    private final List<Segment> segments;
    private final Batches batches;
    private final SegmentRunner runner;
    private final LiveValues liveValues;
    private final ActivationStore boundaries;
    private final Log log;
    private final double[] loss;
    private final BooleanSupplier smallest;

    /** The number of stored gradients of single rows that earlier segments still add to. */
    private int carried;

    /**
     * Creates a run of {@code calibrator}.
     *
     * @param liveValues the values that taps need in later segments
     * @param runner runs the segments; it is closed with the run
     * @param smallest whether the segments cannot be divided further
     */
    CalibrationRun(
            Calibrator calibrator,
            Objective objective,
            List<Segment> segments,
            LiveValues liveValues,
            SegmentRunner runner,
            BooleanSupplier smallest) {
        this.calibrator = calibrator;
        this.objective = objective;
        this.segments = segments;
        this.liveValues = liveValues;
        this.runner = runner;
        this.smallest = smallest;
        this.flow = runner.flow();
        this.batches = runner.batches();
        this.boundaries = runner.boundaries();
        this.log = calibrator.log();
        this.loss = new double[batches.rowCount()];
    }

    /** Runs only forward, and passes sums to {@code sink} in order of execution. */
    Summary forward(List<Tap> taps, SumSink sink) {
        int last = segments.size() - 1;
        while (last >= 0 && tapsOf(taps, last).isEmpty()) {
            last--;
        }
        try (Log.Progress progress = log.progress("calibration", batches.tokens() * (last + 1))) {
            for (int index = 0; index <= last; index++) {
                List<Tap> segmentTaps = tapsOf(taps, index);
                Segment segment = segments.get(index);
                SegmentRequest request = index < last
                        ? forward(segment).withTaps(segmentTaps)
                        : SegmentRequest.capture(segment, segmentTaps, null);
                Set<Value> released = liveValues.release(segment);
                released.addAll(segment.inputs());
                inSegment(
                        index,
                        () -> runner.forward(
                                request.withGiven(liveValues.needed(segment)).withReleased(released), progress));
                deliver(segmentTaps, index + 1, segments.size(), sink);
            }
        }
        return new Summary(new double[0], batches.tokens());
    }

    /**
     * Runs forward, then backward, and passes sums to {@code sink} in the reverse order of execution.
     *
     * @param saved the state of a stopped run to resume; null to start from the last segment
     * @param onCheckpoint called after each segment with the state that a resumed run needs
     */
    Summary backward(List<Tap> taps, SumSink sink, Checkpoint.State saved, Consumer<Checkpoint.State> onCheckpoint) {
        List<Tap> gradients = taps.stream().filter(Tap::needsGradients).toList();
        int first = saved == null ? segments.size() - 1 : saved.next();
        try (Log.Progress progress = log.progress("calibration", batches.tokens() * (4L * first + 3))) {
            for (int index = 0; index < first; index++) {
                Segment segment = segments.get(index);
                inSegment(index, () -> runner.forward(forward(segment), progress));
            }
            if (saved != null) {
                restore(taps, saved);
            }
            for (int index = first; index >= 0 && concernsAny(taps, 0, index + 1); index--) {
                List<Tap> segmentTaps = tapsOf(taps, index);
                boolean continues = concernsAny(gradients, 0, index);
                int current = index;
                inSegment(index, () -> backward(current, segmentTaps, continues, progress));
                deliver(segmentTaps, 0, index, sink);
                if (continues) {
                    onCheckpoint.accept(state(index - 1));
                }
            }
        }
        return new Summary(loss, batches.tokens());
    }

    /** Does the work of a segment. If memory does not suffice, the error says which segment it is. */
    private void inSegment(int index, Runnable work) {
        try {
            work.run();
        } catch (OutOfMemoryException e) {
            throw new OutOfMemoryException(
                    "%s (segment %d of %d)".formatted(e.getMessage(), index + 1, segments.size()), e);
        }
    }

    private SegmentRequest forward(Segment segment) {
        return SegmentRequest.advance(segment).withKept(liveValues.kept(segment));
    }

    /** Runs only forward, and returns the loss of each row. */
    double[] losses() {
        int last = segments.size() - 1;
        try (Log.Progress progress = log.progress("calibration", batches.tokens() * (last + 1))) {
            for (Segment segment : segments.subList(0, last)) {
                runner.forward(SegmentRequest.advance(segment).withReleased(segment.inputs()), progress);
            }
            Segment segment = segments.get(last);
            SegmentGraph graph = SegmentGraph.loss(segment, flow, new Objective.End(objective, segment, calibrator));
            try (Session session = runner.open(graph)) {
                for (int batch = 0; batch < batches.count(); batch++) {
                    Map<String, RuntimeTensor> feeds = runner.feeds(graph, batch);
                    feeds.putAll(graph.loss().feeds().of(batches, batch));
                    String rows = graph.loss().rows();
                    try (Outputs outputs = session.runInto(feeds, Map.of(), List.of(rows))) {
                        keepLoss(batch, outputs.tensor(rows).toFloats());
                    }
                    progress.step(batches.tokens(batch));
                    runner.free();
                }
            }
        }
        return loss;
    }

    /** The properties that a stopped run and the resumed one must share. */
    List<Integer> shape() {
        return List.of(segments.size(), batches.count(), batches.rowCount(), (int) batches.tokens());
    }

    /** Whether the segments and batches are as small as they can be. */
    boolean isSmallest() {
        return smallest.getAsBoolean();
    }

    int segmentCount() {
        return segments.size();
    }

    /** Whether a run can resume from the current state. It cannot while gradients of single rows are incomplete. */
    boolean canStop() {
        return carried == 0;
    }

    private Checkpoint.State state(int next) {
        Map<String, HostTensor> sums = new LinkedHashMap<>();
        runner.sums().forEach((tap, sum) -> sums.put(tap.toString(), sum.toHost()));
        return new Checkpoint.State(next, loss, kept(segments.get(next).output().name()), sums);
    }

    /**
     * The stored tensors of a value for each batch. They are read on demand, because together they may exceed the
     * memory.
     */
    private List<HostTensor> kept(String value) {
        return new AbstractList<>() {
            @Override
            public HostTensor get(int batch) {
                return boundaries.get(new Place(value, batch)).toHost();
            }

            @Override
            public int size() {
                return batches.count();
            }
        };
    }

    private void restore(List<Tap> taps, Checkpoint.State saved) {
        System.arraycopy(saved.loss(), 0, loss, 0, loss.length);
        for (int batch = 0; batch < batches.count(); batch++) {
            Place place = new Place(segments.get(saved.next()).output().name(), batch);
            boundaries.put(place, runner.placed(saved.gradients().get(batch)));
        }
        for (Tap tap : taps) {
            if (saved.partial().containsKey(tap.toString())) {
                runner.sums().put(tap, runner.placed(saved.partial().get(tap.toString())));
            }
        }
    }

    private List<Tap> tapsOf(List<Tap> taps, int index) {
        return taps.stream()
                .filter(tap -> SegmentGraph.concerns(segments.get(index), tap))
                .toList();
    }

    private boolean concernsAny(List<Tap> taps, int from, int to) {
        return segments.subList(from, to).stream()
                .anyMatch(segment -> taps.stream().anyMatch(tap -> SegmentGraph.concerns(segment, tap)));
    }

    private Set<Tap> concerned(List<Tap> taps, int from, int to) {
        Set<Tap> concerned = new HashSet<>(taps);
        concerned.removeIf(tap -> !concernsAny(List.of(tap), from, to));
        return concerned;
    }

    /** Passes the sums of those taps to {@code sink} that none of the segments {@code from} to {@code to} adds to. */
    private void deliver(List<Tap> taps, int from, int to, SumSink sink) {
        for (Tap tap : taps) {
            if (!concernsAny(List.of(tap), from, to)) {
                sink.accept(tap, runner.sums().remove(tap));
            }
        }
    }

    private void backward(int index, List<Tap> taps, boolean inputGradient, Log.Progress progress) {
        Segment segment = segments.get(index);
        boolean last = index == segments.size() - 1;
        SegmentGraph.BackwardRequest request = new SegmentGraph.BackwardRequest(
                segment,
                taps,
                last ? new Objective.End(objective, segment, calibrator) : null,
                inputGradient,
                liveValues.needed(segment),
                concerned(taps, index + 1, segments.size()),
                concerned(taps, 0, index));
        SegmentGraph graph = SegmentGraph.backward(request, flow);
        try (Session session = runner.open(graph)) {
            runner.start(taps, segment);
            for (int batch = 0; batch < batches.count(); batch++) {
                backward(graph, session, batch);
                progress.step(3L * batches.tokens(batch));
                runner.free();
            }
        }
        runner.dropKept(liveValues.release(segment));
    }

    /** Runs one batch. The gradient of the segment's input takes the place of the input. */
    private void backward(SegmentGraph graph, Session session, int batch) {
        Segment segment = graph.segment();
        boolean last = graph.loss() != null;
        Map<String, RuntimeTensor> feeds = runner.feeds(graph, batch);
        Map<String, RuntimeTensor> into = runner.accumulate(graph, feeds);
        List<RuntimeTensor> taken = carry(graph, batch, feeds, into);
        if (last) {
            feeds.putAll(graph.loss().feeds().of(batches, batch));
        } else {
            taken.add(boundaries.take(new Place(segment.output().name(), batch)));
            feeds.put(graph.outputGradient(), taken.get(taken.size() - 1));
        }
        RuntimeTensor gradient = null;
        if (graph.inputGradient() != null) {
            RuntimeTensor value = feeds.get(segment.input().name());
            gradient = runner.zeros(value.dtype(), value.shape());
            into.put(graph.inputGradient(), gradient);
        }
        try (Outputs outputs =
                session.runInto(feeds, into, last ? List.of(graph.loss().rows()) : List.of())) {
            if (last) {
                keepLoss(batch, outputs.tensor(graph.loss().rows()).toFloats());
                requireFinite(batch);
            }
        }
        taken.forEach(RuntimeTensor::release);
        keepCarried(graph, batch, into);
        if (segment.input() != null) {
            Place input = new Place(segment.input().name(), batch);
            boundaries.drop(input);
            if (gradient != null) {
                boundaries.put(input, gradient);
            }
        }
    }

    /** Feeds gradients of single rows from later segments, and returns them. The caller releases them. */
    private List<RuntimeTensor> carry(
            SegmentGraph graph, int batch, Map<String, RuntimeTensor> feeds, Map<String, RuntimeTensor> into) {
        List<RuntimeTensor> taken = new ArrayList<>();
        for (Carry carry : graph.carries()) {
            if (carry.before() != null) {
                taken.add(boundaries.take(new Place(carry.tap().toString(), batch)));
                feeds.put(carry.before(), taken.get(taken.size() - 1));
                carried--;
            }
            if (carry.after() != null) {
                into.put(carry.after(), runner.zeros(DType.FLOAT, SumShapes.of(graph.segment(), carry.tap())));
            }
        }
        return taken;
    }

    private void keepCarried(SegmentGraph graph, int batch, Map<String, RuntimeTensor> into) {
        for (Carry carry : graph.carries()) {
            if (carry.after() != null) {
                boundaries.put(new Place(carry.tap().toString(), batch), into.get(carry.after()));
                carried++;
            }
        }
    }

    private void keepLoss(int batch, float[] losses) {
        for (int i = 0; i < losses.length; i++) {
            loss[batches.rows(batch)[i]] = losses[i];
        }
    }

    private void requireFinite(int batch) {
        for (int row : batches.rows(batch)) {
            if (!Double.isFinite(loss[row])) {
                long[] tokens = batches.row(row);
                throw new UserException("the loss of calibration row %d of %d (%s) is %s%s"
                        .formatted(
                                row + 1,
                                loss.length,
                                NonFinite.beginning(tokens),
                                loss[row],
                                NonFinite.origin(flow.program().model(), calibrator.runtime(), tokens)));
            }
        }
    }

    @Override
    public void close() {
        runner.close();
    }
}
