// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import io.onnxprune.device.Device;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.DType;
import java.lang.ref.Cleaner;
import java.util.Arrays;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.locks.LockSupport;

/** A dense tensor in the memory of a device, of any size. Memory that nobody releases is freed with the tensor. */
public final class DeviceTensor implements RuntimeTensor {
    private static final Cleaner CLEANER = Cleaner.create();
    private static final int ATTEMPTS = 3;
    /** Time in which the collector's threads free what it found. */
    private static final long COLLECTION_NANOS = 50_000_000;

    private final Device device;
    private final DType dtype;
    private final long[] shape;
    private final Memory memory;
    private final Cleaner.Cleanable cleanable;

    /** The memory of one tensor, which is freed once. */
    private static final class Memory implements Runnable {
        private final Device device;
        private final long address;
        private final AtomicBoolean freed = new AtomicBoolean();

        Memory(Device device, long address) {
            this.device = device;
            this.address = address;
        }

        @Override
        public void run() {
            if (!freed.getAndSet(true)) {
                device.free(address);
            }
        }
    }

    private DeviceTensor(Device device, DType dtype, long[] shape) {
        this.device = device;
        this.dtype = dtype;
        this.shape = shape.clone();
        this.memory = new Memory(device, allocate(device, Math.max(1, byteSize())));
        this.cleanable = CLEANER.register(this, memory);
    }

    /** Allocates memory. Where there is none left, unreachable tensors may still hold it until they are collected. */
    private static long allocate(Device device, long bytes) {
        for (int attempt = 1; attempt < ATTEMPTS; attempt++) {
            try {
                return device.allocate(bytes);
            } catch (UserException e) {
                System.gc();
                LockSupport.parkNanos(COLLECTION_NANOS);
            }
        }
        return device.allocate(bytes);
    }

    /**
     * A tensor whose elements are not initialised.
     *
     * @throws UserException when the device has too little free memory
     */
    static DeviceTensor uninitialized(Device device, DType dtype, long[] shape) {
        return new DeviceTensor(device, dtype, shape);
    }

    /**
     * A tensor of zeros.
     *
     * @throws UserException when the device has too little free memory
     */
    public static DeviceTensor zeros(Device device, DType dtype, long[] shape) {
        DeviceTensor tensor = new DeviceTensor(device, dtype, shape);
        tensor.clear();
        return tensor;
    }

    /**
     * A copy of a tensor.
     *
     * @throws UserException when the device has too little free memory
     */
    public static DeviceTensor of(Device device, HostTensor tensor) {
        DeviceTensor copy = new DeviceTensor(device, tensor.dtype(), tensor.shape());
        device.write(copy.address(), tensor.bytes());
        return copy;
    }

    /** The address of the first element in the memory of the device. */
    long address() {
        if (memory.freed.get()) {
            throw new IllegalStateException(this + " is released");
        }
        return memory.address;
    }

    @Override
    public DType dtype() {
        return dtype;
    }

    @Override
    public long[] shape() {
        return shape.clone();
    }

    @Override
    public long byteSize() {
        return dtype.bytes(HostTensor.elements(shape));
    }

    @Override
    public HostTensor toHost() {
        HostTensor host = HostTensor.zeros(dtype, shape);
        device.read(address(), host.bytes());
        return host;
    }

    @Override
    public void clear() {
        device.clear(address(), byteSize());
    }

    @Override
    public void release() {
        cleanable.clean();
    }

    @Override
    public String toString() {
        return dtype + Arrays.toString(shape) + " in " + device.name();
    }
}
