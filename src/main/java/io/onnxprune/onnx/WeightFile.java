// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.onnx;

import ai.onnx.proto.OnnxMl.TensorProto;
import com.google.protobuf.UnsafeByteOperations;
import io.onnxprune.ir.Bytes;
import io.onnxprune.ir.Tensor;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.IdentityHashMap;

/**
 * The file that weights are streamed to while a model is serialized. It is the external data file itself, or a spool
 * file from which computed inline weights are mapped back, so that they are never on the heap together.
 */
final class WeightFile implements AutoCloseable {
    private static final int BLOCK = 4 << 20;
    /** The page size. ONNX Runtime memory-maps weights that start on a page. */
    private static final long ALIGNMENT = 4096;

    private static final long SPOOL_THRESHOLD = 1 << 20;

    private final Path path;
    /** Offsets of the stored bytes, by identity. */
    private final IdentityHashMap<Bytes, Long> offsets = new IdentityHashMap<>();

    private FileChannel channel;
    private long position;

    WeightFile(Path path) {
        this.path = path;
    }

    /**
     * Makes {@code proto} refer to the tensor's bytes in the file {@code location}. Appends the bytes if they are not
     * stored yet.
     */
    void storeExternal(Tensor tensor, TensorProto.Builder proto, String location) throws IOException {
        Long known = offsets.get(tensor.bytes());
        long offset =
                known != null ? known : append(tensor.bytes(), tensor.bytes().size() >= ALIGNMENT ? ALIGNMENT : 64);
        offsets.put(tensor.bytes(), offset);
        proto.setDataLocation(TensorProto.DataLocation.EXTERNAL);
        proto.addExternalData(ModelWriter.entry("location", location));
        proto.addExternalData(ModelWriter.entry("offset", Long.toString(offset)));
        proto.addExternalData(
                ModelWriter.entry("length", Long.toString(tensor.bytes().size())));
    }

    /** Sets the tensor's bytes as raw_data without copying large ones to the heap. */
    void storeInline(Tensor tensor, TensorProto.Builder proto) throws IOException {
        Bytes bytes = tensor.bytes();
        if (bytes instanceof Bytes.InMemory memory) {
            proto.setRawData(UnsafeByteOperations.unsafeWrap(memory.buffer().slice()));
        } else if (bytes.size() < SPOOL_THRESHOLD) {
            proto.setRawData(UnsafeByteOperations.unsafeWrap(bytes.toArray()));
        } else {
            long offset = append(bytes, ALIGNMENT);
            ByteBuffer mapped = open().map(FileChannel.MapMode.READ_ONLY, offset, bytes.size());
            proto.setRawData(UnsafeByteOperations.unsafeWrap(mapped));
        }
    }

    private long append(Bytes bytes, long alignment) throws IOException {
        long offset = (position + alignment - 1) / alignment * alignment;
        ByteBuffer block = ByteBuffer.allocateDirect((int) Math.min(BLOCK, bytes.size()));
        for (long done = 0; done < bytes.size(); done += block.limit()) {
            block.clear().limit((int) Math.min(block.capacity(), bytes.size() - done));
            bytes.read(done, block);
            block.flip();
            for (long at = offset + done; block.hasRemaining(); ) {
                at += open().write(block, at);
            }
        }
        position = offset + bytes.size();
        return offset;
    }

    private FileChannel open() throws IOException {
        if (channel == null) {
            channel = FileChannel.open(
                    path, StandardOpenOption.CREATE_NEW, StandardOpenOption.READ, StandardOpenOption.WRITE);
        }
        return channel;
    }

    @Override
    public void close() throws IOException {
        if (channel != null) {
            channel.close();
        }
    }
}
