// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.device;

import static java.nio.charset.StandardCharsets.UTF_8;

import com.sun.jna.Native;
import com.sun.jna.Pointer;
import io.onnxprune.diag.UserException;
import java.lang.ref.Reference;
import java.nio.ByteBuffer;
import java.util.HashMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * The memory of an NVIDIA GPU, through CUDA's runtime library. There is one instance for each GPU and process. All work
 * is done on CUDA's default stream. Untried on a GPU.
 */
public final class CudaDevice implements Device {
    /** The oldest version of CUDA's runtime, as {@code cudaRuntimeGetVersion} counts. */
    private static final int MIN_VERSION = 12_000;
    /** More bytes than a {@code struct cudaDeviceProp} has in any version. */
    private static final int PROPERTIES = 1 << 14;

    private static final int NAME = 256;
    /** Bytes of a heap buffer that are copied at once. */
    private static final int STEP = 1 << 20;

    private static final Map<Integer, CudaDevice> OPEN = new HashMap<>();

    private final CudaRuntime cuda;
    private final int ordinal;
    private final String name;
    private @Nullable CudaBlas blas;

    /**
     * Rows of bytes at equal distances, in the memory of the host or of the device.
     *
     * @param address of the first row
     * @param pitch distance of the beginnings of two rows in bytes
     */
    public record Rows(long address, long pitch) {}

    CudaDevice(CudaRuntime cuda, int ordinal) {
        this.cuda = cuda;
        this.ordinal = ordinal;
        int[] version = new int[1];
        opened(cuda.cudaRuntimeGetVersion(version));
        if (version[0] < MIN_VERSION) {
            throw CudaFailures.version(version[0], MIN_VERSION);
        }
        opened(cuda.cudaSetDevice(ordinal));
        // The first call that needs the device creates its context.
        opened(cuda.cudaFree(0));
        byte[] properties = new byte[PROPERTIES];
        opened(cuda.cudaGetDeviceProperties(properties, ordinal));
        int length = 0;
        while (length < NAME && properties[length] != 0) {
            length++;
        }
        name = new String(properties, 0, length, UTF_8);
    }

    /**
     * The memory of a GPU.
     *
     * @param ordinal CUDA's number of it, from 0 on
     * @throws UserException when CUDA is not found or too old, or there is no driver or no such device
     */
    public static synchronized CudaDevice open(int ordinal) {
        return OPEN.computeIfAbsent(ordinal, number -> new CudaDevice(CudaLibraries.runtime(), number));
    }

    @Override
    public long allocate(long bytes) {
        select();
        long[] address = new long[1];
        int error = cuda.cudaMalloc(address, Math.max(1, bytes));
        if (error == CudaFailures.MEMORY_ALLOCATION) {
            throw OutOfMemory.of(name, bytes, freeBytes(), totalBytes());
        }
        check("cudaMalloc", error);
        return address[0];
    }

    @Override
    public void free(long address) {
        select();
        check("cudaFree", cuda.cudaFree(address));
    }

    @Override
    public void clear(long address, long bytes) {
        select();
        check("cudaMemset", cuda.cudaMemset(address, 0, bytes));
        finish();
    }

    @Override
    public void write(long address, ByteBuffer from) {
        select();
        ByteBuffer source = from.slice();
        if (source.isDirect()) {
            copyDirect(address, source, true);
            return;
        }
        ByteBuffer part = ByteBuffer.allocateDirect(Math.min(STEP, source.remaining()));
        for (int done = 0; source.hasRemaining(); ) {
            part.clear().limit(Math.min(STEP, source.remaining()));
            int count = part.remaining();
            part.put(source.slice().limit(count)).flip();
            write(address + done, part);
            done += count;
            source.position(source.position() + count);
        }
    }

    @Override
    public void read(long address, ByteBuffer to) {
        select();
        ByteBuffer target = to.slice();
        if (target.isDirect()) {
            copyDirect(address, target, false);
            return;
        }
        ByteBuffer part = ByteBuffer.allocateDirect(Math.min(STEP, target.remaining()));
        for (int done = 0; target.hasRemaining(); ) {
            part.clear().limit(Math.min(STEP, target.remaining()));
            int count = part.remaining();
            read(address + done, part);
            target.put(part);
            done += count;
        }
    }

    /** Reads the first {@code count} numbers of {@code to} from the device. */
    public void read(long address, double[] to, int count) {
        select();
        check("cudaMemcpy", cuda.cudaMemcpy(to, address, (long) count * Double.BYTES, CudaRuntime.DEVICE_TO_HOST));
    }

    /** Writes the first {@code count} numbers of {@code from} to the device. */
    public void write(long address, double[] from, int count) {
        select();
        check("cudaMemcpy", cuda.cudaMemcpy(address, from, (long) count * Double.BYTES, CudaRuntime.HOST_TO_DEVICE));
    }

    /** Copies {@code height} rows of {@code width} bytes from the device to the host. */
    public void read(Rows device, Rows host, long width, long height) {
        copy(device, host, width, height, CudaRuntime.DEVICE_TO_HOST);
    }

    /** Copies {@code height} rows of {@code width} bytes from the host to the device. */
    public void write(Rows device, Rows host, long width, long height) {
        copy(host, device, width, height, CudaRuntime.HOST_TO_DEVICE);
    }

    /** Copies {@code height} rows of {@code width} bytes within the device, in the order of the default stream. */
    public void copy(Rows from, Rows to, long width, long height) {
        copy(from, to, width, height, CudaRuntime.DEVICE_TO_DEVICE);
    }

    private void copy(Rows from, Rows to, long width, long height, int kind) {
        if (width == 0 || height == 0) {
            return;
        }
        select();
        if (height == 1 || (from.pitch == width && to.pitch == width)) {
            check("cudaMemcpy", cuda.cudaMemcpy(to.address, from.address, width * height, kind));
        } else {
            check(
                    "cudaMemcpy2D",
                    cuda.cudaMemcpy2D(to.address, to.pitch, from.address, from.pitch, width, height, kind));
        }
    }

    /**
     * cuBLAS on this device, which is loaded when this is called for the first time.
     *
     * @throws UserException when it is not found or does not start
     */
    public synchronized CudaBlas blas() {
        if (blas == null) {
            blas = new CudaBlas(this, CudaLibraries.blas());
        }
        return blas;
    }

    /** Copies between a direct buffer without a position and the device. */
    private void copyDirect(long address, ByteBuffer buffer, boolean toDevice) {
        if (!buffer.hasRemaining()) {
            return;
        }
        try {
            long host = Pointer.nativeValue(Native.getDirectBufferPointer(buffer));
            int error = toDevice
                    ? cuda.cudaMemcpy(address, host, buffer.remaining(), CudaRuntime.HOST_TO_DEVICE)
                    : cuda.cudaMemcpy(host, address, buffer.remaining(), CudaRuntime.DEVICE_TO_HOST);
            check("cudaMemcpy", error);
            finish();
        } finally {
            Reference.reachabilityFence(buffer);
        }
    }

    @Override
    public void copy(long from, long to, long bytes) {
        select();
        if (bytes > 0) {
            check("cudaMemcpy", cuda.cudaMemcpy(to, from, bytes, CudaRuntime.DEVICE_TO_DEVICE));
            finish();
        }
    }

    @Override
    public long freeBytes() {
        return memory()[0];
    }

    @Override
    public long totalBytes() {
        return memory()[1];
    }

    @Override
    public String name() {
        return name;
    }

    @Override
    public boolean isHost() {
        return false;
    }

    private long[] memory() {
        select();
        long[] free = new long[1];
        long[] total = new long[1];
        check("cudaMemGetInfo", cuda.cudaMemGetInfo(free, total));
        return new long[] {free[0], total[0]};
    }

    /** Makes this the device of the calling thread; CUDA keeps that choice for each thread. */
    void select() {
        check("cudaSetDevice", cuda.cudaSetDevice(ordinal));
    }

    /**
     * Waits for the default stream. A copy from pageable memory and a copy within the device may return earlier, and
     * sessions work on other streams, which do not wait for this one.
     */
    private void finish() {
        check("cudaStreamSynchronize", cuda.cudaStreamSynchronize(0));
    }

    private void opened(int error) {
        if (error != 0) {
            throw CudaFailures.open(ordinal, error, cuda.cudaGetErrorString(error));
        }
    }

    private void check(String function, int error) {
        if (error != 0) {
            throw CudaFailures.call(function, name, error, cuda.cudaGetErrorString(error));
        }
    }
}
