// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import com.sun.jna.Pointer;
import io.onnxprune.device.Device;
import io.onnxprune.ir.DType;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;

/** The outputs of a run through a {@link Binding}, which are in the memory of its device. */
final class DeviceOutputs extends Outputs {
    private final NativeApi api;
    private final Device device;
    private final Map<String, Value> values = new LinkedHashMap<>();

    /** An output: the runtime's value, and what describes it. */
    @SuppressWarnings("ArrayRecordComponent") // private, never compared
    private record Value(Pointer pointer, DType dtype, long[] shape) {}

    DeviceOutputs(NativeApi api, Device device) {
        this.api = api;
        this.device = device;
    }

    /** Takes an output over; it is released when the outputs are closed. */
    void add(String name, Pointer pointer) throws NativeApi.Failure {
        long[] typeAndShape = api.typeAndShape(pointer);
        DType dtype = DType.of((int) typeAndShape[0]);
        values.put(name, new Value(pointer, dtype, Arrays.copyOfRange(typeAndShape, 1, typeAndShape.length)));
    }

    @Override
    public boolean has(String name) {
        return values.containsKey(name);
    }

    @Override
    public long[] shape(String name) {
        return value(name).shape.clone();
    }

    @Override
    public DType dtype(String name) {
        return value(name).dtype;
    }

    private Value value(String name) {
        Value value = values.get(name);
        if (value == null) {
            throw missing(name);
        }
        return value;
    }

    @Override
    HostTensor read(String name) {
        HostTensor tensor = HostTensor.zeros(dtype(name), shape(name));
        device.read(address(name), tensor.bytes());
        return tensor;
    }

    @Override
    public DeviceTensor keep(String name) {
        DeviceTensor tensor = DeviceTensor.uninitialized(device, dtype(name), shape(name));
        device.copy(address(name), tensor.address(), tensor.byteSize());
        return tensor;
    }

    private long address(String name) {
        try {
            return api.address(value(name).pointer);
        } catch (NativeApi.Failure e) {
            throw OnnxRuntime.failure("the output " + name + " cannot be read", e);
        }
    }

    @Override
    public void close() {
        values.values().forEach(value -> api.releaseValue(value.pointer));
        values.clear();
    }
}
