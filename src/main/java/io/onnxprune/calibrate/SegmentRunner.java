// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.calibrate.ActivationStore.Place;
import io.onnxprune.calibrate.SegmentGraph.Accumulator;
import io.onnxprune.diag.Log;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.Outputs;
import io.onnxprune.runtime.Session;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * Runs segments of one model over all batches, one session at a time, and keeps what passes from run to run: the values
 * at borders, the sums that taps add up, and constants that took the place of the model's own.
 */
final class SegmentRunner implements AutoCloseable {
    private static final long GARBAGE_BYTES = 1L << 27;

    private final OnnxRuntime runtime;
    private final DataFlow flow;
    private final Batches batches;
    private final ActivationStore boundaries;
    private final Map<Tap, HostTensor> sums = new HashMap<>();
    private final Map<String, Tensor> replaced = new HashMap<>();
    private long allocated;

    /**
     * A runner that has run nothing yet.
     *
     * @param boundaries where values at borders are kept; closed with the runner
     * @param weights new contents for constants, in all sessions
     */
    SegmentRunner(
            OnnxRuntime runtime,
            DataFlow flow,
            Batches batches,
            ActivationStore boundaries,
            Map<String, Tensor> weights) {
        this.runtime = runtime;
        this.flow = flow;
        this.batches = batches;
        this.boundaries = boundaries;
        this.replaced.putAll(weights);
    }

    ActivationStore boundaries() {
        return boundaries;
    }

    /** The sums of taps that are not handed over yet. */
    Map<Tap, HostTensor> sums() {
        return sums;
    }

    /** Takes new contents for a constant, in all sessions from now on. */
    void replace(String constant, Tensor contents) {
        replaced.put(constant, contents);
    }

    /** Runs a segment forwards. */
    void forward(SegmentRequest task, Log.Progress progress) {
        Segment segment = task.segment();
        SegmentGraph graph = SegmentGraph.forward(task, flow);
        Map<Integer, long[]> shapes = new HashMap<>();
        try (Session session = open(graph)) {
            start(task.taps(), segment);
            List<WideSum> wide = wideSums(task.taps());
            for (int batch = 0; batch < batches.count(); batch++) {
                Map<String, HostTensor> feeds = feeds(graph, batch);
                if (task.counterpart() != null) {
                    feeds.put(graph.counterpart(), task.counterpart().values().apply(batch));
                }
                Map<String, HostTensor> into = accumulate(graph, feeds);
                Set<String> wanted = batches.missing(task.yields(), batch);
                task.kept().forEach(value -> wanted.add(value.name()));
                if (task.handOn()) {
                    long[] shape = shapes.get(batches.size(batch));
                    if (shape != null && !wanted.contains(segment.output().name())) {
                        into.put(segment.output().name(), zeros(flow.trace().dtype(segment.output()), shape));
                    } else {
                        wanted.add(segment.output().name());
                    }
                }
                try (Outputs outputs = session.runInto(feeds, into, wanted)) {
                    keep(task, batch, outputs, into, shapes);
                }
                release(segment, task.released(), batch);
                progress.step(batches.tokens(batch));
                free();
                if ((batch + 1) % WideSum.RUNS == 0) {
                    wide.forEach(WideSum::takeOver);
                }
            }
            wide.forEach(WideSum::giveBack);
        }
    }

    /** For sums that so many batches add to that float32 alone would not do. */
    private List<WideSum> wideSums(Collection<Tap> taps) {
        List<WideSum> wide = new ArrayList<>();
        for (Tap tap : batches.count() > WideSum.RUNS ? taps : List.<Tap>of()) {
            allocated += 2L * sums.get(tap).bytes().remaining();
            wide.add(new WideSum(sums.get(tap)));
        }
        return wide;
    }

    private void keep(
            SegmentRequest task,
            int batch,
            Outputs outputs,
            Map<String, HostTensor> into,
            Map<Integer, long[]> shapes) {
        batches.keep(task.yields(), batch, outputs);
        for (Value value : task.kept()) {
            HostTensor tensor = outputs.tensor(value.name()).direct();
            allocated += tensor.bytes().remaining();
            boundaries.put(placeHeld(value, batch), tensor);
        }
        if (task.handOn()) {
            String output = task.segment().output().name();
            HostTensor value = into.containsKey(output)
                    ? into.get(output)
                    : outputs.tensor(output).direct();
            shapes.putIfAbsent(batches.size(batch), value.shape());
            boundaries.put(new Place(output, batch), value);
        }
    }

    /** Gives up what was kept of earlier runs: the value at the start of a segment, or values beside it. */
    private void release(Segment segment, Collection<Value> values, int batch) {
        for (Value value : values) {
            boundaries.drop(value == segment.input() ? new Place(value.name(), batch) : placeHeld(value, batch));
        }
    }

    /** Gives up values that were kept beside those between segments. */
    void dropKept(Collection<Value> values) {
        for (int batch = 0; batch < batches.count(); batch++) {
            for (Value value : values) {
                boundaries.drop(placeHeld(value, batch));
            }
        }
    }

    /** Apart from the value between two segments, whose place its gradient takes. */
    private static Place placeHeld(Value value, int batch) {
        return new Place("held " + value.name(), batch);
    }

    Session open(SegmentGraph graph) {
        free();
        graph.segment()
                .constants()
                .values()
                .forEach(constant -> allocated += constant.constant().bytes().size());
        return runtime.open(graph.model(replaced), true);
    }

    HostTensor zeros(DType dtype, long[] shape) {
        HostTensor tensor = HostTensor.zeros(dtype, shape);
        allocated += tensor.bytes().remaining();
        return tensor;
    }

    /** Direct buffers and mapped weights are freed by the collector alone, which does not see how large they are. */
    void free() {
        allocated += boundaries.newlyRead();
        if (allocated > GARBAGE_BYTES) {
            allocated = 0;
            System.gc();
        }
    }

    /** What a segment reads, the value at its start and those that are given too. */
    Map<String, HostTensor> feeds(SegmentGraph graph, int batch) {
        Segment segment = graph.segment();
        Map<String, HostTensor> feeds = batches.feeds(segment, batch);
        Value input = segment.input();
        if (input != null) {
            feeds.put(input.name(), boundaries.get(new Place(input.name(), batch)));
        }
        for (Value value : graph.given()) {
            feeds.put(value.name(), boundaries.get(placeHeld(value, batch)));
        }
        return feeds;
    }

    /** Makes a sum of zeros for each tap that no earlier segment began. */
    void start(Collection<Tap> taps, Segment segment) {
        for (Tap tap : taps) {
            sums.computeIfAbsent(tap, key -> zeros(DType.FLOAT, SegmentGraph.shape(segment, key)));
        }
    }

    /** Feeds the sums and has them written back in place; returns the outputs to be written. */
    Map<String, HostTensor> accumulate(SegmentGraph graph, Map<String, HostTensor> feeds) {
        Map<String, HostTensor> into = new LinkedHashMap<>();
        for (Accumulator accumulator : graph.accumulators()) {
            HostTensor sum = sums.get(accumulator.tap());
            feeds.put(accumulator.before(), sum);
            into.put(accumulator.after(), sum);
        }
        return into;
    }

    @Override
    public void close() {
        boundaries.close();
    }
}
