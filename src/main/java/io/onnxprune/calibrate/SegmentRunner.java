// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.calibrate.ActivationStore.Place;
import io.onnxprune.calibrate.SegmentGraph.Accumulator;
import io.onnxprune.diag.Log;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.runtime.DeviceTensor;
import io.onnxprune.runtime.DeviceWeights;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.Outputs;
import io.onnxprune.runtime.RuntimeTensor;
import io.onnxprune.runtime.Session;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/**
 * Runs segments of one model over all batches, one session at a time. It stores the state between runs: the values
 * between segments, the sums of taps, and replaced constants.
 */
final class SegmentRunner implements AutoCloseable {
    private static final long GARBAGE_BYTES = 1L << 27;

    private final OnnxRuntime runtime;
    private final DataFlow flow;
    private final Batches batches;
    private final ActivationStore boundaries;
    /** The weights in the memory of a device; empty where sessions use them in place. */
    private final Optional<DeviceWeights> deviceWeights;

    private final Map<Tap, RuntimeTensor> sums = new HashMap<>();
    private final Map<String, Tensor> replaced = new HashMap<>();
    private long allocated;

    /**
     * Creates a runner.
     *
     * @param boundaries stores values between segments; it is closed with the runner
     * @param weights new contents for constants, in all sessions
     * @param weightBudget bytes of weights that may stay in the memory of a device between sessions
     */
    SegmentRunner(
            OnnxRuntime runtime,
            DataFlow flow,
            Batches batches,
            ActivationStore boundaries,
            Map<String, Tensor> weights,
            long weightBudget) {
        this.runtime = runtime;
        this.flow = flow;
        this.batches = batches;
        this.boundaries = boundaries;
        this.deviceWeights = runtime.device().map(device -> runtime.weights(weightBudget));
        this.replaced.putAll(weights);
    }

    DataFlow flow() {
        return flow;
    }

    Batches batches() {
        return batches;
    }

    ActivationStore boundaries() {
        return boundaries;
    }

    /** The sums of taps that were not passed to a sink yet, in the memory that sessions work in. */
    Map<Tap, RuntimeTensor> sums() {
        return sums;
    }

    /** Removes the sum of a tap and returns it in this process's memory; null if no segment started it. */
    HostTensor takeSum(Tap tap) {
        RuntimeTensor sum = sums.remove(tap);
        return sum == null ? null : sum.moveToHost();
    }

    /** Replaces the contents of a constant in all later sessions. */
    void replace(String constant, Tensor contents) {
        replaced.put(constant, contents);
    }

    /** Runs a segment forward. */
    void forward(SegmentRequest request, Log.Progress progress) {
        Segment segment = request.segment();
        SegmentGraph graph = SegmentGraph.forward(request, flow);
        Map<Integer, long[]> shapes = new HashMap<>();
        try (Session session = open(graph)) {
            start(request.taps(), segment);
            Map<Tap, WideSum> wide = wideSums(request.taps());
            for (int batch = 0; batch < batches.count(); batch++) {
                Map<String, RuntimeTensor> feeds = feeds(graph, batch);
                if (request.reference() != null) {
                    feeds.put(
                            graph.referenceInput(), request.reference().values().apply(batch));
                }
                Map<String, RuntimeTensor> into = accumulate(graph, feeds);
                Set<String> wanted = batches.missing(request.yields(), batch);
                request.kept().forEach(value -> wanted.add(value.name()));
                if (request.yieldOutput()) {
                    long[] shape = shapes.get(batches.size(batch));
                    if (shape != null && !wanted.contains(segment.output().name())) {
                        into.put(segment.output().name(), zeros(flow.trace().dtype(segment.output()), shape));
                    } else {
                        wanted.add(segment.output().name());
                    }
                }
                try (Outputs outputs = session.runInto(feeds, into, wanted)) {
                    keep(request, batch, outputs, into, shapes);
                }
                release(segment, request.released(), batch);
                progress.step(batches.tokens(batch));
                free();
                if ((batch + 1) % WideSum.RUNS == 0) {
                    wide.values().forEach(WideSum::absorb);
                }
            }
            wide.forEach((tap, sum) -> sums.put(tap, sum.total()));
        }
    }

    /** Wide sums for taps with so many batches that float32 is not accurate enough. */
    private Map<Tap, WideSum> wideSums(Collection<Tap> taps) {
        Map<Tap, WideSum> wide = new LinkedHashMap<>();
        for (Tap tap : batches.count() > WideSum.RUNS ? taps : List.<Tap>of()) {
            allocated += 2 * sums.get(tap).byteSize();
            wide.put(tap, new WideSum(sums.get(tap)));
        }
        return wide;
    }

    private void keep(
            SegmentRequest request,
            int batch,
            Outputs outputs,
            Map<String, RuntimeTensor> into,
            Map<Integer, long[]> shapes) {
        batches.keep(request.yields(), batch, outputs);
        for (Value value : request.kept()) {
            boundaries.put(sidePlace(value, batch), counted(outputs.keep(value.name())));
        }
        if (request.yieldOutput()) {
            String output = request.segment().output().name();
            RuntimeTensor value = into.containsKey(output) ? into.get(output) : outputs.keep(output);
            shapes.putIfAbsent(batches.size(batch), value.shape());
            boundaries.put(new Place(output, batch), value);
        }
    }

    /** Removes stored values of earlier runs: the value at the start of a segment, or values beside it. */
    private void release(Segment segment, Collection<Value> values, int batch) {
        for (Value value : values) {
            boundaries.drop(value == segment.input() ? new Place(value.name(), batch) : sidePlace(value, batch));
        }
    }

    /** Removes stored values that are not the input or output of a segment. */
    void dropKept(Collection<Value> values) {
        for (int batch = 0; batch < batches.count(); batch++) {
            for (Value value : values) {
                boundaries.drop(sidePlace(value, batch));
            }
        }
    }

    /**
     * The key of a value beside those between segments. It differs from the key of a value between segments, which its
     * gradient replaces.
     */
    private static Place sidePlace(Value value, int batch) {
        return new Place("held " + value.name(), batch);
    }

    Session open(SegmentGraph graph) {
        free();
        graph.segment()
                .constants()
                .values()
                .forEach(constant -> allocated += constant.constant().bytes().size());
        Model model = graph.model(replaced, runtime.options());
        return deviceWeights.isPresent() ? runtime.open(model, deviceWeights.get()) : runtime.open(model, true);
    }

    /** A tensor of zeros in the memory that sessions work in. */
    RuntimeTensor zeros(DType dtype, long[] shape) {
        return counted(runtime.zeros(dtype, shape));
    }

    private RuntimeTensor counted(RuntimeTensor tensor) {
        allocated += tensor instanceof HostTensor ? tensor.byteSize() : 0;
        return tensor;
    }

    /** A tensor of this process in the memory that sessions work in. */
    RuntimeTensor placed(HostTensor tensor) {
        return runtime.device()
                .<RuntimeTensor>map(device -> DeviceTensor.of(device, tensor))
                .orElse(tensor);
    }

    /**
     * Triggers garbage collection when many bytes were allocated. Only the collector frees direct buffers and mapped
     * weights, and it does not see their size.
     */
    void free() {
        allocated += boundaries.newlyRead();
        if (allocated > GARBAGE_BYTES) {
            allocated = 0;
            System.gc();
        }
    }

    /** The feeds of a segment: side values, the value at its start, and given values. */
    Map<String, RuntimeTensor> feeds(SegmentGraph graph, int batch) {
        Segment segment = graph.segment();
        Map<String, RuntimeTensor> feeds = batches.feeds(segment, batch);
        Value input = segment.input();
        if (input != null) {
            feeds.put(input.name(), boundaries.get(new Place(input.name(), batch)));
        }
        for (Value value : graph.given()) {
            feeds.put(value.name(), boundaries.get(sidePlace(value, batch)));
        }
        return feeds;
    }

    /** Creates a sum of zeros for each tap that no earlier segment started. */
    void start(Collection<Tap> taps, Segment segment) {
        for (Tap tap : taps) {
            sums.computeIfAbsent(tap, key -> zeros(DType.FLOAT, SumShapes.of(segment, key)));
        }
    }

    /** Adds the sums to {@code feeds}. Returns the outputs that write the new sums in place. */
    Map<String, RuntimeTensor> accumulate(SegmentGraph graph, Map<String, RuntimeTensor> feeds) {
        Map<String, RuntimeTensor> into = new LinkedHashMap<>();
        for (Accumulator accumulator : graph.accumulators()) {
            RuntimeTensor sum = sums.get(accumulator.tap());
            feeds.put(accumulator.before(), sum);
            into.put(accumulator.after(), sum);
        }
        return into;
    }

    @Override
    public void close() {
        boundaries.close();
        batches.release();
        sums.values().forEach(RuntimeTensor::release);
        deviceWeights.ifPresent(DeviceWeights::close);
    }
}
