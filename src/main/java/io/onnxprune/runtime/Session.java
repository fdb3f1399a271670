// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import ai.onnxruntime.NodeInfo;
import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OnnxTensorLike;
import ai.onnxruntime.OnnxValue;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import ai.onnxruntime.OrtSession.RunOptions;
import ai.onnxruntime.TensorInfo;
import io.onnxprune.diag.TimeLimitException;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.DType;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Consumer;

/** A loaded model that is ready to run. Closing it frees its memory. */
public final class Session implements AutoCloseable {
    private final OnnxRuntime runtime;
    private final OrtSession session;
    private final List<OnnxTensor> initializers;
    private final Optional<LoadedAdapter> adapter;
    /** Present where tensors are in the memory of a device. */
    private final Optional<Bound> device;

    private final List<Io> inputs;
    private final List<Io> outputs;

    /**
     * A graph input or output.
     *
     * @param name its name in the graph
     * @param dtype element type; UNDEFINED when it is not a tensor
     * @param shape extent of each axis, -1 when it is not fixed; empty for a scalar or an unknown rank
     * @param dimNames symbolic name of each axis; empty when it has none or is fixed
     */
    @SuppressWarnings("ArrayRecordComponent") // Plain data about the interface; nothing compares it.
    public record Io(String name, DType dtype, long[] shape, String[] dimNames) {
        /** Number of axes. */
        public int rank() {
            return shape.length;
        }
    }

    Session(OnnxRuntime runtime, OrtSession session, List<OnnxTensor> initializers, Optional<LoadedAdapter> adapter)
            throws OrtException {
        this(runtime, session, initializers, adapter, Optional.empty());
    }

    /**
     * Creates a session whose weights are in the memory of a device.
     *
     * @param release takes the session and the weights back when this is closed
     */
    Session(OnnxRuntime runtime, OrtSession session, Binding binding, Consumer<OrtSession> release)
            throws OrtException {
        this(runtime, session, List.of(), Optional.empty(), Optional.of(new Bound(binding, release)));
    }

    /** The binding of a session to the memory of a device. */
    private record Bound(Binding binding, Consumer<OrtSession> release) {}

    private Session(
            OnnxRuntime runtime,
            OrtSession session,
            List<OnnxTensor> initializers,
            Optional<LoadedAdapter> adapter,
            Optional<Bound> device)
            throws OrtException {
        this.runtime = runtime;
        this.session = session;
        // The runtime uses the weights in place. These references keep their memory alive.
        this.initializers = List.copyOf(initializers);
        this.adapter = adapter;
        this.device = device;
        this.inputs = describe(session.getInputInfo());
        this.outputs = describe(session.getOutputInfo());
    }

    private static List<Io> describe(Map<String, NodeInfo> infos) {
        List<Io> result = new ArrayList<>();
        for (NodeInfo node : infos.values()) {
            if (node.getInfo() instanceof TensorInfo tensor) {
                result.add(
                        new Io(node.getName(), Outputs.dtype(tensor), tensor.getShape(), tensor.getDimensionNames()));
            } else {
                result.add(new Io(node.getName(), DType.UNDEFINED, new long[0], new String[0]));
            }
        }
        return List.copyOf(result);
    }

    /** The graph inputs in graph order, without initializers. */
    public List<Io> inputs() {
        return inputs;
    }

    /** The graph outputs in graph order. */
    public List<Io> outputs() {
        return outputs;
    }

    /**
     * Runs the model once.
     *
     * @param feeds tensors by input name
     * @param wanted names of the outputs to compute
     * @throws UserException when an input is missing or has a wrong type or shape, or the run fails
     */
    public Outputs run(Map<String, HostTensor> feeds, Collection<String> wanted) {
        return run(feeds, null, Map.of(), wanted);
    }

    /**
     * Runs the model once, for at most {@code limit}.
     *
     * @param feeds tensors by input name
     * @param wanted names of the outputs to compute
     * @throws TimeLimitException when the run takes longer
     * @throws UserException when an input is missing or has a wrong type or shape, or the run fails
     */
    public Outputs run(Map<String, HostTensor> feeds, Collection<String> wanted, Duration limit) {
        try (TimeLimit time = new TimeLimit(limit)) {
            try {
                return execute(feeds, new HashMap<>(), Map.of(), wanted, time.options());
            } catch (UserException e) {
                if (time.expired()) {
                    throw new TimeLimitException("a run on " + describeFeeds(feeds) + " takes too long", e);
                }
                throw e;
            }
        } catch (OrtException e) {
            throw OnnxRuntime.failure("ONNX Runtime cannot limit the time of a run", e);
        }
    }

    /**
     * Runs the model once with outputs of an earlier run as inputs, without copying them. This passes a decoder's
     * cache from step to step.
     *
     * @param feeds tensors by input name
     * @param earlier the earlier run, not closed; null when {@code carried} is empty
     * @param carried from input name to the name of the output of {@code earlier} that it receives
     * @param wanted names of the outputs to compute
     * @throws UserException when an input is missing or has a wrong type or shape, or the run fails
     */
    public Outputs run(
            Map<String, HostTensor> feeds, Outputs earlier, Map<String, String> carried, Collection<String> wanted) {
        Map<String, OnnxTensorLike> fed = new HashMap<>();
        carried.forEach((input, output) -> fed.put(input, ((HostOutputs) earlier).onnx(output)));
        return execute(feeds, fed, Map.of(), wanted, options());
    }

    /**
     * Runs the model once and writes outputs to given tensors, without a copy where they are in the memory that the
     * session works in. An output may overwrite an input that is read element by element at the position being written
     * (an accumulator).
     *
     * @param feeds tensors by input name
     * @param into tensors of the outputs' types and shapes, by output name; direct where they are in this process
     * @param wanted names of further outputs to compute
     * @return the further outputs
     * @throws UserException when an input is missing or has a wrong type or shape, or the run fails
     */
    public Outputs runInto(
            Map<String, ? extends RuntimeTensor> feeds,
            Map<String, ? extends RuntimeTensor> into,
            Collection<String> wanted) {
        if (device.isEmpty()) {
            return execute(inHost(feeds), new HashMap<>(), inHost(into), wanted, options());
        }
        try {
            return device.get().binding().run(feeds, into, wanted);
        } catch (NativeApi.Failure e) {
            throw Failures.onDevice("ONNX Runtime cannot run the model on " + describeFeeds(feeds), e);
        }
    }

    private static Map<String, HostTensor> inHost(Map<String, ? extends RuntimeTensor> tensors) {
        Map<String, HostTensor> inHost = new LinkedHashMap<>();
        tensors.forEach((name, tensor) -> inHost.put(name, tensor.toHost()));
        return inHost;
    }

    private RunOptions options() {
        return adapter.map(LoadedAdapter::options).orElse(null);
    }

    private Outputs execute(
            Map<String, HostTensor> feeds,
            Map<String, OnnxTensorLike> fed,
            Map<String, HostTensor> into,
            Collection<String> wanted,
            RunOptions options) {
        Map<String, OnnxValue> targets = new HashMap<>();
        List<OnnxTensor> own = new ArrayList<>();
        try {
            for (Map.Entry<String, HostTensor> feed : feeds.entrySet()) {
                OnnxTensor tensor = runtime.toOnnx(feed.getKey(), feed.getValue());
                own.add(tensor);
                fed.put(feed.getKey(), tensor);
            }
            for (Map.Entry<String, HostTensor> target : into.entrySet()) {
                OnnxTensor tensor = runtime.toOnnx(target.getKey(), target.getValue());
                own.add(tensor);
                targets.put(target.getKey(), tensor);
            }
            return new HostOutputs(session.run(fed, new LinkedHashSet<>(wanted), targets, options));
        } catch (OrtException e) {
            throw OnnxRuntime.failure("ONNX Runtime cannot run the model on " + describeFeeds(feeds), e);
        } finally {
            own.forEach(OnnxTensor::close);
        }
    }

    private static String describeFeeds(Map<String, ? extends RuntimeTensor> feeds) {
        Map<String, RuntimeTensor> few = new LinkedHashMap<>();
        for (Map.Entry<String, ? extends RuntimeTensor> feed : feeds.entrySet()) {
            if (few.size() < 4) {
                few.put(feed.getKey(), feed.getValue());
            }
        }
        return few + (feeds.size() > few.size() ? " and %d more".formatted(feeds.size() - few.size()) : "");
    }

    @Override
    public void close() {
        if (device.isPresent()) {
            device.get().binding.close();
            device.get().release.accept(session);
            return;
        }
        try {
            session.close();
        } catch (OrtException e) {
            throw OnnxRuntime.failure("ONNX Runtime cannot close a session", e);
        } finally {
            initializers.forEach(OnnxTensor::close);
            adapter.ifPresent(LoadedAdapter::close);
        }
    }
}
