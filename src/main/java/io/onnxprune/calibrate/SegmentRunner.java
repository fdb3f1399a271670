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
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
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
    private final Held held;
    private final Map<Tap, HostTensor> sums = new HashMap<>();
    private final Map<String, Tensor> replaced = new HashMap<>();
    private long allocated;

    /**
     * A runner that has run nothing yet.
     *
     * @param boundaries where values at borders are kept; closed with the runner
     * @param held values that taps need in later segments
     */
    SegmentRunner(OnnxRuntime runtime, DataFlow flow, Batches batches, ActivationStore boundaries, Held held) {
        this.runtime = runtime;
        this.flow = flow;
        this.batches = batches;
        this.boundaries = boundaries;
        this.held = held;
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

    /**
     * Runs a segment forwards.
     *
     * @param counterpart what errors are measured against; null if no tap is of errors
     * @param handOn whether the segment's output and what later segments read beside the stream are wanted; the taps
     *     alone otherwise, and nothing is computed that they do not need
     * @param keepInput whether the value at the segment's start is needed again
     */
    void forward(
            Segment segment,
            Collection<Tap> taps,
            Counterpart counterpart,
            boolean handOn,
            boolean keepInput,
            Log.Progress progress) {
        Set<Value> kept = held.kept(segment);
        SegmentGraph graph = SegmentGraph.forward(segment, flow, taps, counterpart, handOn, kept);
        String output = segment.output().name();
        Map<Integer, long[]> shapes = new HashMap<>();
        try (Session session = open(graph)) {
            start(taps, segment);
            for (int batch = 0; batch < batches.count(); batch++) {
                Map<String, HostTensor> feeds = feeds(graph, batch);
                if (counterpart != null) {
                    feeds.put(graph.counterpart(), counterpart.values().apply(batch));
                }
                Map<String, HostTensor> into = accumulate(graph, feeds);
                Set<String> wanted = new LinkedHashSet<>();
                int size = batches.size(batch);
                if (handOn) {
                    wanted.addAll(batches.missing(segment, batch));
                    kept.forEach(value -> wanted.add(value.name()));
                    if (shapes.containsKey(size) && !wanted.contains(output)) {
                        into.put(output, zeros(flow.trace().dtype(segment.output()), shapes.get(size)));
                    } else {
                        wanted.add(output);
                    }
                }
                try (Outputs outputs = session.runInto(feeds, into, wanted)) {
                    if (handOn) {
                        batches.keep(segment, batch, outputs);
                        HostTensor value = into.containsKey(output)
                                ? into.get(output)
                                : outputs.tensor(output).direct();
                        shapes.putIfAbsent(size, value.shape());
                        boundaries.put(new Place(output, batch), value);
                        hold(kept, batch, outputs);
                    }
                }
                if (segment.input() != null && !keepInput) {
                    boundaries.drop(new Place(segment.input().name(), batch));
                }
                progress.step(batches.tokens(batch));
                free();
            }
        }
        release(graph);
    }

    private void hold(Set<Value> kept, int batch, Outputs outputs) {
        for (Value value : kept) {
            HostTensor tensor = outputs.tensor(value.name()).direct();
            allocated += tensor.bytes().remaining();
            boundaries.put(placeHeld(value.name(), batch), tensor);
        }
    }

    /** Gives up what a segment borrowed from earlier ones and nobody else needs. */
    void release(SegmentGraph graph) {
        if (!graph.borrowed().isEmpty()) {
            for (Value value : held.release(graph.segment())) {
                for (int batch = 0; batch < batches.count(); batch++) {
                    boundaries.drop(placeHeld(value.name(), batch));
                }
            }
        }
    }

    /** Apart from the value between two segments, whose place its gradient takes. */
    private static Place placeHeld(String value, int batch) {
        return new Place("held " + value, batch);
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

    /** What a segment reads, the value at its start and those it borrows too. */
    Map<String, HostTensor> feeds(SegmentGraph graph, int batch) {
        Segment segment = graph.segment();
        Map<String, HostTensor> feeds = batches.feeds(segment, batch);
        Value input = segment.input();
        if (input != null) {
            feeds.put(input.name(), boundaries.get(new Place(input.name(), batch)));
        }
        for (String name : graph.borrowed()) {
            feeds.put(name, boundaries.get(placeHeld(name, batch)));
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
