// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import io.onnxprune.device.Device;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Tensor;
import java.util.ArrayDeque;
import java.util.Collection;
import java.util.Collections;
import java.util.Deque;
import java.util.IdentityHashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;

/**
 * Weights in the memory of a device, in their own element types. Sessions that need the same weights share one copy.
 * Weights that no open session uses stay as long as they fit a budget; those used least recently are freed first.
 */
public final class DeviceWeights implements AutoCloseable {
    private final Device device;
    private final long budget;
    private final IdentityHashMap<Tensor, Entry> entries = new IdentityHashMap<>();
    private final Deque<Tensor> unused = new ArrayDeque<>();
    private long bytes;

    private static final class Entry {
        private final DeviceTensor copy;
        private int uses;

        Entry(DeviceTensor copy) {
            this.copy = copy;
        }
    }

    /**
     * Creates an empty set.
     *
     * @param budget bytes that unused weights may take, together with those in use
     */
    DeviceWeights(Device device, long budget) {
        this.device = device;
        this.budget = budget;
    }

    /**
     * Copies weights to the device, as far as they are not there.
     *
     * @param wanted the weights of a session, by name
     * @return the copies, by name; {@link #release} gives them back
     * @throws io.onnxprune.diag.UserException when the device has too little memory; nothing is in use then
     */
    Map<String, DeviceTensor> acquire(Map<String, Tensor> wanted) {
        Set<Tensor> tensors = distinct(wanted.values());
        long missing = tensors.stream()
                .filter(tensor -> !entries.containsKey(tensor))
                .mapToLong(tensor -> tensor.dtype().bytes(tensor.elements()))
                .sum();
        tensors.forEach(tensor -> use(tensor, 1));
        shrink(budget - missing);
        Map<String, DeviceTensor> copies = new LinkedHashMap<>();
        try {
            wanted.forEach((name, tensor) -> copies.put(name, copy(tensor)));
            return copies;
        } catch (UserException e) {
            release(wanted.values());
            throw e;
        }
    }

    private DeviceTensor copy(Tensor tensor) {
        Entry entry = entries.get(tensor);
        if (entry == null) {
            HostTensor source = new HostTensor(
                    tensor.dtype(), tensor.shape(), tensor.bytes().direct());
            entry = new Entry(DeviceTensor.of(device, source));
            entry.uses = 1;
            entries.put(tensor, entry);
            bytes += entry.copy.byteSize();
        }
        return entry.copy;
    }

    /** Gives weights of a closed session back. */
    void release(Collection<Tensor> weights) {
        distinct(weights).forEach(tensor -> use(tensor, -1));
        shrink(budget);
    }

    private static Set<Tensor> distinct(Collection<Tensor> weights) {
        Set<Tensor> distinct = Collections.newSetFromMap(new IdentityHashMap<>());
        distinct.addAll(weights);
        return distinct;
    }

    private void use(Tensor tensor, int change) {
        Entry entry = entries.get(tensor);
        if (entry != null) {
            entry.uses += change;
            unused.removeIf(other -> other == tensor);
            if (entry.uses == 0) {
                unused.add(tensor);
            }
        }
    }

    private void shrink(long limit) {
        while (bytes > limit && !unused.isEmpty()) {
            Entry entry = entries.remove(unused.remove());
            bytes -= entry.copy.byteSize();
            entry.copy.release();
        }
    }

    @Override
    public void close() {
        shrink(Long.MIN_VALUE);
    }
}
