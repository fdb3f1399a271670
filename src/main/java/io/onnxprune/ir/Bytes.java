// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import io.onnxprune.diag.UserException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;

/**
 * The little-endian bytes of a tensor. They can be on the heap, in a mapped model file, in an external data file, or
 * computed from another tensor. Callers read ranges, so none needs all of a weight in memory.
 */
public interface Bytes {
    /** Number of bytes. */
    long size();

    /** Fills the remaining space of {@code target} with the bytes from {@code offset} on. */
    void read(long offset, ByteBuffer target);

    /**
     * A direct little-endian view of all bytes, for zero-copy use by a native library. Files are memory-mapped;
     * anything else is copied.
     *
     * @throws ArithmeticException when there are more than 2 GiB
     * @throws UserException when the file cannot be read
     */
    default ByteBuffer direct() {
        ByteBuffer copy = ByteBuffer.allocateDirect(Math.toIntExact(size())).order(ByteOrder.LITTLE_ENDIAN);
        read(0, copy);
        return copy.flip();
    }

    /** All bytes in a new array, for small tensors. */
    default byte[] toArray() {
        byte[] array = new byte[Math.toIntExact(size())];
        read(0, ByteBuffer.wrap(array));
        return array;
    }

    /** Bytes that are in memory, on the heap or in a mapped file. The buffer is not copied. */
    static Bytes of(ByteBuffer buffer) {
        return new InMemory(buffer.slice().order(ByteOrder.LITTLE_ENDIAN));
    }

    /** A range of a file. The file is opened for each read. */
    static Bytes of(Path file, long offset, long size) {
        return new FileRange(file, offset, size);
    }

    /** The bytes of a buffer; see {@link #of(ByteBuffer)}. */
    record InMemory(ByteBuffer buffer) implements Bytes {
        @Override
        public long size() {
            return buffer.capacity();
        }

        @Override
        public void read(long offset, ByteBuffer target) {
            target.put(buffer.slice(Math.toIntExact(offset), target.remaining()));
        }

        @Override
        public ByteBuffer direct() {
            return buffer.isDirect() ? buffer.slice().order(ByteOrder.LITTLE_ENDIAN) : Bytes.super.direct();
        }
    }

    /** The bytes in a range of a file; see {@link #of(Path, long, long)}. */
    record FileRange(Path file, long offset, long size) implements Bytes {
        @Override
        public void read(long from, ByteBuffer target) {
            try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
                long position = offset + from;
                while (target.hasRemaining()) {
                    int count = channel.read(target, position);
                    if (count < 0) {
                        throw new UserException(file + " ended while it was read; was it changed during the run?");
                    }
                    position += count;
                }
            } catch (IOException e) {
                throw new UserException("cannot read weights from " + file + ": " + e.getMessage(), e);
            }
        }

        @Override
        public ByteBuffer direct() {
            try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
                return channel.map(FileChannel.MapMode.READ_ONLY, offset, size).order(ByteOrder.LITTLE_ENDIAN);
            } catch (IOException e) {
                throw new UserException("cannot map weights of " + file + ": " + e.getMessage(), e);
            }
        }
    }
}
