// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.DType;
import io.onnxprune.runtime.HostTensor;
import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.zip.CRC32;
import java.util.zip.CheckedOutputStream;

/**
 * A file of the work folder that says where a backward pass stands, so that a run that was stopped can go on: what its
 * sink made of the gradients so far, and the gradients of the value between the segments that are done and those to come.
 * It is replaced as a whole, so that a stop at any time leaves the last one or the one before.
 */
final class Checkpoint {
    private static final int VERSION = 2;
    private static final int BLOCK = 1 << 16;

    private final Path file;
    private final long intervalNanos;
    private long last = System.nanoTime();

    /**
     * A checkpoint of one run.
     *
     * @param file where it is; its name tells runs apart
     * @param seconds how far two of them are at least apart
     */
    Checkpoint(Path file, double seconds) {
        this.file = file;
        this.intervalNanos = (long) (seconds * 1e9);
    }

    /**
     * Where a run stands.
     *
     * @param next the segment to run backwards next
     * @param loss of each row
     * @param gradients of the output of that segment, for each batch
     * @param partial sums of initializers that segments still to come have a share in
     */
    @SuppressWarnings("ArrayRecordComponent") // bulk data, never compared
    record State(int next, double[] loss, List<HostTensor> gradients, Map<String, HostTensor> partial) {}

    /** Whether it is time for the next one. */
    boolean isDue() {
        return System.nanoTime() - last >= intervalNanos;
    }

    /**
     * Writes the state of a run and of its sink.
     *
     * @throws UserException when it cannot be written
     */
    void save(State state, ResumableSink sink) {
        Path part = file.resolveSibling(file.getFileName() + ".part");
        try {
            Files.createDirectories(file.getParent());
            CRC32 check = new CRC32();
            try (DataOutputStream out = new DataOutputStream(
                    new CheckedOutputStream(new BufferedOutputStream(Files.newOutputStream(part)), check))) {
                out.writeInt(VERSION);
                out.writeInt(state.next);
                out.writeInt(state.loss.length);
                for (double loss : state.loss) {
                    out.writeDouble(loss);
                }
                out.writeInt(state.gradients.size());
                for (HostTensor gradient : state.gradients) {
                    write(out, gradient);
                }
                out.writeInt(state.partial.size());
                for (Map.Entry<String, HostTensor> sum : state.partial.entrySet()) {
                    out.writeUTF(sum.getKey());
                    write(out, sum.getValue());
                }
                sink.save(out);
                out.writeLong(check.getValue());
            }
            Files.move(part, file, StandardCopyOption.REPLACE_EXISTING, StandardCopyOption.ATOMIC_MOVE);
        } catch (IOException e) {
            throw new UserException(
                    "cannot note in %s how far calibration is: %s; free space there or name another --work-dir"
                            .formatted(file.getParent(), FileFailure.reason(e)),
                    e);
        }
        last = System.nanoTime();
    }

    /**
     * The state of the run that was stopped, its sink brought to where it was; empty if there is none.
     *
     * @throws UserException when the file is damaged
     */
    Optional<State> load(ResumableSink sink) {
        if (!Files.exists(file)) {
            return Optional.empty();
        }
        try (DataInputStream in = new DataInputStream(new BufferedInputStream(Files.newInputStream(file)))) {
            if (in.readInt() != VERSION) {
                return Optional.empty();
            }
            requireWhole();
            int next = in.readInt();
            double[] loss = new double[in.readInt()];
            for (int i = 0; i < loss.length; i++) {
                loss[i] = in.readDouble();
            }
            List<HostTensor> gradients = new ArrayList<>();
            for (int count = in.readInt(); count > 0; count--) {
                gradients.add(read(in));
            }
            Map<String, HostTensor> partial = new LinkedHashMap<>();
            for (int count = in.readInt(); count > 0; count--) {
                String name = in.readUTF();
                partial.put(name, read(in));
            }
            sink.restore(in);
            return Optional.of(new State(next, loss, gradients, partial));
        } catch (IOException | IllegalArgumentException e) {
            throw new UserException("the checkpoint " + file + " is damaged; remove it, or leave out --resume", e);
        }
    }

    /** The sum at the end is that of all before it, or nothing else in the file can be relied on. */
    private void requireWhole() throws IOException {
        CRC32 sum = new CRC32();
        byte[] block = new byte[BLOCK];
        try (DataInputStream in = new DataInputStream(new BufferedInputStream(Files.newInputStream(file)))) {
            long left = Files.size(file) - Long.BYTES;
            while (left > 0) {
                int count = (int) Math.min(block.length, left);
                in.readFully(block, 0, count);
                sum.update(block, 0, count);
                left -= count;
            }
            if (in.readLong() != sum.getValue()) {
                throw new IOException("the content is not what was written");
            }
        }
    }

    /** Removes the file: the run is done, or begins anew. */
    void remove() {
        try {
            Files.deleteIfExists(file);
        } catch (IOException e) {
            throw new UserException("cannot remove the checkpoint " + file + ": " + FileFailure.reason(e), e);
        }
    }

    private static void write(DataOutputStream out, HostTensor tensor) throws IOException {
        out.writeUTF(tensor.dtype().name());
        long[] shape = tensor.shape();
        out.writeInt(shape.length);
        for (long extent : shape) {
            out.writeLong(extent);
        }
        out.flush();
        Channels.newChannel(out).write(tensor.bytes());
    }

    private static HostTensor read(DataInputStream in) throws IOException {
        DType dtype = DType.valueOf(in.readUTF());
        long[] shape = new long[in.readInt()];
        for (int axis = 0; axis < shape.length; axis++) {
            shape[axis] = in.readLong();
        }
        HostTensor tensor = HostTensor.zeros(dtype, shape);
        ByteBuffer target = tensor.bytes();
        byte[] block = new byte[BLOCK];
        while (target.hasRemaining()) {
            int count = Math.min(block.length, target.remaining());
            in.readFully(block, 0, count);
            target.put(block, 0, count);
        }
        return tensor;
    }
}
