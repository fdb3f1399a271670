// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.device;

import io.onnxprune.diag.OutOfMemoryException;
import java.nio.ByteBuffer;
import java.util.HashMap;
import java.util.Map;

/** Host memory that counts what is allocated and refuses more than a limit. It claims to be larger than it is. */
public final class LimitedDevice implements Device {
    private final HostDevice host = new HostDevice();
    private final Map<Long, Long> sizes = new HashMap<>();
    private final long limit;
    private long used;

    /** Creates a device with so many bytes. */
    public LimitedDevice(long limit) {
        this.limit = limit;
    }

    /** Bytes that are allocated. */
    public synchronized long used() {
        return used;
    }

    @Override
    public synchronized long allocate(long bytes) {
        if (used + bytes > limit) {
            throw new OutOfMemoryException(
                    "out of memory on %s: %d bytes are requested; lower --device-memory".formatted(name(), bytes));
        }
        long address = host.allocate(bytes);
        sizes.put(address, bytes);
        used += bytes;
        return address;
    }

    @Override
    public synchronized void free(long address) {
        used -= sizes.remove(address);
        host.free(address);
    }

    @Override
    public void clear(long address, long bytes) {
        host.clear(address, bytes);
    }

    @Override
    public void write(long address, ByteBuffer from) {
        host.write(address, from);
    }

    @Override
    public void read(long address, ByteBuffer to) {
        host.read(address, to);
    }

    @Override
    public void copy(long from, long to, long bytes) {
        host.copy(from, to, bytes);
    }

    @Override
    public long freeBytes() {
        return 1L << 32;
    }

    @Override
    public long totalBytes() {
        return 1L << 32;
    }

    @Override
    public String name() {
        return "limited memory";
    }

    @Override
    public boolean isHost() {
        return true;
    }
}
