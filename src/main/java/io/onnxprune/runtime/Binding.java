// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import com.sun.jna.Native;
import com.sun.jna.Pointer;
import io.onnxprune.device.Device;
import java.lang.ref.Reference;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;

/**
 * Runs a session on tensors in the memory of its device, so that nothing crosses the bus but what is fed from this
 * process or read into it. The weights are inputs of the graph, bound once.
 */
final class Binding implements AutoCloseable {
    private final NativeApi api;
    private final long session;
    private final Device device;
    private final Pointer hostMemory;
    private final Pointer deviceMemory;
    private final Pointer binding;
    private final List<Pointer> bound = new ArrayList<>();
    private final Collection<DeviceTensor> weights;

    /**
     * Binds the weights.
     *
     * @param session address of the OrtSession
     * @param ordinal number of the device among those of its kind
     * @param weights by input name; they must not be released before the binding is closed
     */
    Binding(NativeApi api, long session, Device device, int ordinal, Map<String, DeviceTensor> weights)
            throws NativeApi.Failure {
        this.api = api;
        this.session = session;
        this.device = device;
        this.weights = weights.values();
        this.hostMemory = api.memoryInfo("Cpu", 0);
        this.deviceMemory = device.isHost() ? hostMemory : api.memoryInfo("Cuda", ordinal);
        this.binding = api.binding(session);
        for (Map.Entry<String, DeviceTensor> weight : weights.entrySet()) {
            Pointer value = value(weight.getValue());
            bound.add(value);
            api.bindInput(binding, weight.getKey(), value);
        }
    }

    /**
     * Runs the session once.
     *
     * @param feeds all other inputs by name
     * @param into tensors that receive outputs in place, by output name
     * @param wanted names of further outputs
     * @return the further outputs
     */
    Outputs run(
            Map<String, ? extends RuntimeTensor> feeds,
            Map<String, ? extends RuntimeTensor> into,
            Collection<String> wanted)
            throws NativeApi.Failure {
        List<Pointer> values = new ArrayList<>();
        List<Object> alive = new ArrayList<>();
        try {
            for (Map.Entry<String, ? extends RuntimeTensor> feed : feeds.entrySet()) {
                Pointer value = value(feed.getValue(), alive);
                values.add(value);
                api.bindInput(binding, feed.getKey(), value);
            }
            for (Map.Entry<String, ? extends RuntimeTensor> target : into.entrySet()) {
                Pointer value = value(target.getValue(), alive);
                values.add(value);
                api.bindOutput(binding, target.getKey(), value);
            }
            for (String name : wanted) {
                api.bindOutputToMemory(binding, name, deviceMemory);
            }
            api.run(session, binding);
            return outputs(into.size(), wanted);
        } finally {
            api.clearOutputs(binding);
            values.forEach(api::releaseValue);
            Reference.reachabilityFence(alive);
            Reference.reachabilityFence(weights);
        }
    }

    /** The outputs that the runtime allocated. They are bound behind {@code first} others. */
    private Outputs outputs(int first, Collection<String> wanted) throws NativeApi.Failure {
        List<Pointer> found = api.outputs(binding);
        found.subList(0, first).forEach(api::releaseValue);
        DeviceOutputs outputs = new DeviceOutputs(api, device);
        int next = first;
        for (String name : wanted) {
            outputs.add(name, found.get(next++));
        }
        return outputs;
    }

    /**
     * The runtime's view of a tensor.
     *
     * @param alive receives what must stay reachable as long as the view is used
     */
    private Pointer value(RuntimeTensor tensor, List<Object> alive) throws NativeApi.Failure {
        alive.add(tensor);
        if (tensor instanceof DeviceTensor inDevice) {
            return value(inDevice);
        }
        ByteBuffer bytes = OnnxRuntime.aligned((HostTensor) tensor);
        alive.add(bytes);
        return api.tensor(
                hostMemory,
                Native.getDirectBufferPointer(bytes),
                tensor.byteSize(),
                tensor.shape(),
                tensor.dtype().code());
    }

    private Pointer value(DeviceTensor tensor) throws NativeApi.Failure {
        return api.tensor(
                deviceMemory,
                new Pointer(tensor.address()),
                tensor.byteSize(),
                tensor.shape(),
                tensor.dtype().code());
    }

    @Override
    public void close() {
        api.releaseBinding(binding);
        bound.forEach(api::releaseValue);
        api.releaseMemoryInfo(hostMemory);
        if (!device.isHost()) {
            api.releaseMemoryInfo(deviceMemory);
        }
    }
}
