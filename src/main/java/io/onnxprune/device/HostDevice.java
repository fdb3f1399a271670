// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.device;

import com.sun.jna.Native;
import com.sun.jna.Pointer;
import com.sun.management.OperatingSystemMXBean;
import io.onnxprune.diag.UserException;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;

/** The host's memory outside the heap. Serves to run the code for devices without a GPU. */
public final class HostDevice implements Device {
    /** Number of bytes that are copied at once; one buffer cannot hold more than an int counts. */
    private static final long STEP = 1 << 30;

    /**
     * Makes the host's memory accessible.
     *
     * @throws UserException when JNA cannot be loaded
     */
    public HostDevice() {
        NativeAccess.load();
    }

    @Override
    public long allocate(long bytes) {
        long address = Native.malloc(Math.max(1, bytes));
        if (address == 0) {
            throw OutOfMemory.of(name(), bytes, freeBytes(), totalBytes());
        }
        return address;
    }

    @Override
    public void free(long address) {
        Native.free(address);
    }

    @Override
    public void clear(long address, long bytes) {
        new Pointer(address).setMemory(0, bytes, (byte) 0);
    }

    @Override
    public void write(long address, ByteBuffer from) {
        if (from.hasRemaining()) {
            at(address, from.remaining()).put(from.duplicate());
        }
    }

    @Override
    public void read(long address, ByteBuffer to) {
        if (to.hasRemaining()) {
            to.duplicate().put(at(address, to.remaining()));
        }
    }

    @Override
    public void copy(long from, long to, long bytes) {
        for (long done = 0; done < bytes; done += STEP) {
            long count = Math.min(STEP, bytes - done);
            at(to + done, count).put(at(from + done, count));
        }
    }

    @Override
    public long freeBytes() {
        return system().getFreeMemorySize();
    }

    @Override
    public long totalBytes() {
        return system().getTotalMemorySize();
    }

    @Override
    public String name() {
        return "host memory";
    }

    @Override
    public boolean isHost() {
        return true;
    }

    private static ByteBuffer at(long address, long bytes) {
        return new Pointer(address).getByteBuffer(0, bytes);
    }

    private static OperatingSystemMXBean system() {
        return ManagementFactory.getPlatformMXBean(OperatingSystemMXBean.class);
    }
}
