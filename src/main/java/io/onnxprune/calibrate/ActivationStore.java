// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Tensor;
import io.onnxprune.runtime.DeviceTensor;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.RuntimeTensor;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.HashMap;
import java.util.Map;

/**
 * Stores the values between segments, one for each batch. Values in the memory of a device stay there as long as they
 * fit its budget, values in this process's memory as long as they fit another one. The others are in a file of the work
 * folder, which is deleted when the store is closed.
 */
final class ActivationStore implements AutoCloseable {
    /** The key of a value: its name and its batch. */
    record Place(String value, int batch) {}

    /** The place of a value in the file. */
    @SuppressWarnings("ArrayRecordComponent") // private, never compared
    private record Slot(long offset, DType dtype, long[] shape) {}

    /**
     * The bytes that may be held.
     *
     * @param device in the memory of a device
     * @param host in this process's memory
     */
    record Budget(long device, long host) {
        /** A budget for a share of the memory. */
        Budget part(long divisor) {
            return new Budget(device / divisor, host / divisor);
        }
    }

    private final Budget budget;
    private final Path folder;
    private final Map<Place, RuntimeTensor> inMemory = new HashMap<>();
    private final Map<Place, Slot> spilled = new HashMap<>();
    private final Map<Long, Deque<Long>> free = new HashMap<>();
    private FileChannel file;
    private long used;
    private long usedOnDevice;
    private long end;
    private long newlyRead;

    /**
     * Creates an empty store.
     *
     * @param budget bytes that may be held in memory
     * @param folder folder for the file with the other values
     */
    ActivationStore(Budget budget, Path folder) {
        this.budget = budget;
        this.folder = folder;
    }

    /** Stores a tensor, direct if it is in this process. Nobody may write to it any more, unless it was taken back. */
    void put(Place key, RuntimeTensor tensor) {
        long size = tensor.byteSize();
        if (tensor instanceof DeviceTensor) {
            if (usedOnDevice + size <= budget.device) {
                usedOnDevice += size;
                inMemory.put(key, tensor);
                return;
            }
            put(key, tensor.moveToHost());
            return;
        }
        if (used + size <= budget.host) {
            used += size;
            inMemory.put(key, tensor);
            return;
        }
        long offset = free.getOrDefault(size, new ArrayDeque<>()).isEmpty()
                ? end
                : free.get(size).pop();
        write(tensor.toHost().bytes(), offset);
        end = Math.max(end, offset + size);
        spilled.put(key, new Slot(offset, tensor.dtype(), tensor.shape()));
    }

    /** The tensor stored under {@code key}. The store may release it when the key is dropped. */
    RuntimeTensor get(Place key) {
        RuntimeTensor tensor = inMemory.get(key);
        return tensor != null ? tensor : read(spilled.get(key));
    }

    /** Removes the tensor stored under {@code key} and returns it. The caller releases it. */
    RuntimeTensor take(Place key) {
        RuntimeTensor tensor = get(key);
        forget(key);
        return tensor;
    }

    /** Removes the tensor stored under {@code key} without reading it. */
    void drop(Place key) {
        RuntimeTensor tensor = forget(key);
        if (tensor != null) {
            tensor.release();
        }
    }

    /** Removes a key, and returns its tensor if it is in memory. */
    private RuntimeTensor forget(Place key) {
        RuntimeTensor tensor = inMemory.remove(key);
        if (tensor instanceof DeviceTensor) {
            usedOnDevice -= tensor.byteSize();
        } else if (tensor != null) {
            used -= tensor.byteSize();
        } else {
            Slot slot = spilled.remove(key);
            long size = slot.dtype.bytes(Tensor.elements(slot.shape));
            free.computeIfAbsent(size, unused -> new ArrayDeque<>()).push(slot.offset);
        }
        return tensor;
    }

    /** Bytes of the buffers that were read from the file since the last call. */
    long newlyRead() {
        long bytes = newlyRead;
        newlyRead = 0;
        return bytes;
    }

    /** Bytes that are held in the memory that sessions work in. */
    long heldBytes() {
        return budget.device > 0 ? usedOnDevice : used;
    }

    /** Bytes of the file. */
    long spilledBytes() {
        return end;
    }

    private void write(ByteBuffer bytes, long offset) {
        try {
            if (file == null) {
                Files.createDirectories(folder);
                Path path = Files.createTempFile(folder, "activations", ".bin");
                file = FileChannel.open(
                        path, StandardOpenOption.READ, StandardOpenOption.WRITE, StandardOpenOption.DELETE_ON_CLOSE);
            }
            long at = offset;
            while (bytes.hasRemaining()) {
                at += file.write(bytes, at);
            }
        } catch (IOException e) {
            throw new UserException(
                    "activations do not fit memory and cannot be written to %s: %s; free space there, name another --work-dir, or lower --samples"
                            .formatted(folder, FileFailure.reason(e)),
                    e);
        }
    }

    private HostTensor read(Slot slot) {
        HostTensor tensor = HostTensor.zeros(slot.dtype, slot.shape);
        ByteBuffer target = tensor.bytes();
        newlyRead += target.remaining();
        try {
            long at = slot.offset;
            while (target.hasRemaining()) {
                int count = file.read(target, at);
                if (count < 0) {
                    throw new UserException("the activations in " + folder + " were truncated while they were in use");
                }
                at += count;
            }
        } catch (IOException e) {
            throw new UserException(
                    "activations cannot be read back from %s: %s".formatted(folder, FileFailure.reason(e)), e);
        }
        return tensor;
    }

    @Override
    public void close() {
        inMemory.values().forEach(RuntimeTensor::release);
        inMemory.clear();
        try {
            if (file != null) {
                file.close();
            }
        } catch (IOException e) {
            throw new UserException(
                    "the activations in %s cannot be removed: %s".formatted(folder, FileFailure.reason(e)), e);
        }
    }
}
