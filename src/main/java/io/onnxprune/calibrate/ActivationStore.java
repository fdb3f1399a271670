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
 * The values between segments, one for each batch: in memory as long as they fit the budget, the others in a file of the
 * work folder that goes when the store is closed.
 */
final class ActivationStore implements AutoCloseable {
    /** One value of one batch. */
    record Place(String value, int batch) {}

    /** Where in the file a value lies. */
    @SuppressWarnings("ArrayRecordComponent") // a note of this class alone
    private record Slot(long offset, DType dtype, long[] shape) {}

    private final long budget;
    private final Path folder;
    private final Map<Place, HostTensor> held = new HashMap<>();
    private final Map<Place, Slot> spilled = new HashMap<>();
    private final Map<Long, Deque<Long>> free = new HashMap<>();
    private FileChannel file;
    private long used;
    private long end;
    private long newlyRead;

    /**
     * An empty store.
     *
     * @param budget bytes that may be held in memory
     * @param folder where the file is made when they do not do
     */
    ActivationStore(long budget, Path folder) {
        this.budget = budget;
        this.folder = folder;
    }

    /** Keeps a direct tensor, which nobody may write to any more unless it was taken back. */
    void put(Place key, HostTensor tensor) {
        long size = tensor.bytes().remaining();
        if (used + size <= budget) {
            used += size;
            held.put(key, tensor);
            return;
        }
        long offset = free.getOrDefault(size, new ArrayDeque<>()).isEmpty()
                ? end
                : free.get(size).pop();
        write(tensor.bytes(), offset);
        end = Math.max(end, offset + size);
        spilled.put(key, new Slot(offset, tensor.dtype(), tensor.shape()));
    }

    /** The tensor that was kept under {@code key}. */
    HostTensor get(Place key) {
        HostTensor tensor = held.get(key);
        return tensor != null ? tensor : read(spilled.get(key));
    }

    /** The tensor that was kept under {@code key}, and the store's share of it is given up. */
    HostTensor take(Place key) {
        HostTensor tensor = get(key);
        drop(key);
        return tensor;
    }

    /** Gives up what was kept under {@code key}, without reading it. */
    void drop(Place key) {
        HostTensor tensor = held.remove(key);
        if (tensor != null) {
            used -= tensor.bytes().remaining();
            return;
        }
        Slot slot = spilled.remove(key);
        long size = slot.dtype.bytes(Tensor.elements(slot.shape));
        free.computeIfAbsent(size, unused -> new ArrayDeque<>()).push(slot.offset);
    }

    /** Bytes of the buffers that were read from the file since this was last asked. */
    long newlyRead() {
        long bytes = newlyRead;
        newlyRead = 0;
        return bytes;
    }

    /** Bytes that are held in memory. */
    long heldBytes() {
        return used;
    }

    /** Bytes that went to the file. */
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
                    throw new UserException("the activations in " + folder + " were cut off while they were in use");
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
        held.clear();
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
