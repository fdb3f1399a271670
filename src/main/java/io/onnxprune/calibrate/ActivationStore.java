// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Tensor;
import io.onnxprune.runtime.HostTensor;
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
 * Stores the values between segments, one for each batch. Values are in memory as long as they fit the budget. The
 * others are in a file of the work folder, which is deleted when the store is closed.
 */
final class ActivationStore implements AutoCloseable {
    /** The key of a value: its name and its batch. */
    record Place(String value, int batch) {}

    /** The place of a value in the file. */
    @SuppressWarnings("ArrayRecordComponent") // private, never compared
    private record Slot(long offset, DType dtype, long[] shape) {}

    private final long budget;
    private final Path folder;
    private final Map<Place, HostTensor> inMemory = new HashMap<>();
    private final Map<Place, Slot> spilled = new HashMap<>();
    private final Map<Long, Deque<Long>> free = new HashMap<>();
    private FileChannel file;
    private long used;
    private long end;
    private long newlyRead;

    /**
     * Creates an empty store.
     *
     * @param budget bytes that may be held in memory
     * @param folder folder for the file with the other values
     */
    ActivationStore(long budget, Path folder) {
        this.budget = budget;
        this.folder = folder;
    }

    /** Stores a direct tensor. Nobody may write to it any more, unless it was taken back. */
    void put(Place key, HostTensor tensor) {
        long size = tensor.bytes().remaining();
        if (used + size <= budget) {
            used += size;
            inMemory.put(key, tensor);
            return;
        }
        long offset = free.getOrDefault(size, new ArrayDeque<>()).isEmpty()
                ? end
                : free.get(size).pop();
        write(tensor.bytes(), offset);
        end = Math.max(end, offset + size);
        spilled.put(key, new Slot(offset, tensor.dtype(), tensor.shape()));
    }

    /** The tensor stored under {@code key}. */
    HostTensor get(Place key) {
        HostTensor tensor = inMemory.get(key);
        return tensor != null ? tensor : read(spilled.get(key));
    }

    /** Removes the tensor stored under {@code key} and returns it. */
    HostTensor take(Place key) {
        HostTensor tensor = get(key);
        drop(key);
        return tensor;
    }

    /** Removes the tensor stored under {@code key} without reading it. */
    void drop(Place key) {
        HostTensor tensor = inMemory.remove(key);
        if (tensor != null) {
            used -= tensor.bytes().remaining();
            return;
        }
        Slot slot = spilled.remove(key);
        long size = slot.dtype.bytes(Tensor.elements(slot.shape));
        free.computeIfAbsent(size, unused -> new ArrayDeque<>()).push(slot.offset);
    }

    /** Bytes of the buffers that were read from the file since the last call. */
    long newlyRead() {
        long bytes = newlyRead;
        newlyRead = 0;
        return bytes;
    }

    /** Bytes that are held in memory. */
    long heldBytes() {
        return used;
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
