// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.ir.Bytes;
import io.onnxprune.ir.CheckpointFile;
import io.onnxprune.ir.CheckpointFile.Content;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Tensor;
import io.onnxprune.runtime.HostTensor;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * A checkpoint of a backward pass: what its sink made of the gradients so far, and the gradients of the value between the segments
 * that are done and those to come.
 */
final class Checkpoint {
    private static final String GRADIENT = "gradient/";
    private static final String PARTIAL = "partial/";
    private static final String LOSS = "loss";
    private static final String SINK = "sink";

    private final CheckpointFile file;
    private final long intervalNanos;
    private long last = System.nanoTime();

    /**
     * A checkpoint of one run.
     *
     * @param file where it is; its name tells runs apart
     * @param seconds how far two of them are at least apart
     */
    Checkpoint(Path file, double seconds) {
        this.file = new CheckpointFile(file);
        this.intervalNanos = (long) (seconds * 1e9);
    }

    /**
     * How far a run is.
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
     * @throws io.onnxprune.diag.UserException when it cannot be written
     */
    void save(State state, ResumableSink sink) {
        Map<String, Tensor> tensors = new LinkedHashMap<>();
        ByteBuffer loss = ByteBuffer.allocate(Double.BYTES * state.loss.length).order(ByteOrder.LITTLE_ENDIAN);
        loss.asDoubleBuffer().put(state.loss);
        tensors.put(LOSS, Tensor.of(DType.DOUBLE, new long[] {state.loss.length}, Bytes.of(loss)));
        for (int batch = 0; batch < state.gradients.size(); batch++) {
            tensors.put(GRADIENT + batch, tensor(state.gradients.get(batch)));
        }
        state.partial.forEach((name, sum) -> tensors.put(PARTIAL + name, tensor(sum)));
        byte[] made = made(sink);
        tensors.put(SINK, Tensor.of(DType.UINT8, new long[] {made.length}, Bytes.of(ByteBuffer.wrap(made))));
        file.save(new Content(Map.of("next", Integer.toString(state.next)), tensors));
        last = System.nanoTime();
    }

    private static byte[] made(ResumableSink sink) {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        try (DataOutputStream out = new DataOutputStream(bytes)) {
            sink.save(out);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        return bytes.toByteArray();
    }

    /**
     * The state of the run that was stopped, its sink brought to where it was; empty if there is none.
     *
     * @throws io.onnxprune.diag.UserException when the file is damaged
     */
    Optional<State> load(ResumableSink sink) {
        return file.load(content -> state(content, sink));
    }

    private static State state(Content content, ResumableSink sink) {
        Map<String, Tensor> tensors = content.tensors();
        ByteBuffer bytes = tensors.get(LOSS).bytes().direct().order(ByteOrder.LITTLE_ENDIAN);
        double[] loss = new double[bytes.remaining() / Double.BYTES];
        bytes.asDoubleBuffer().get(loss);
        List<HostTensor> gradients = new ArrayList<>();
        for (int batch = 0; tensors.containsKey(GRADIENT + batch); batch++) {
            gradients.add(copy(tensors.get(GRADIENT + batch)));
        }
        Map<String, HostTensor> partial = new LinkedHashMap<>();
        tensors.forEach((name, tensor) -> {
            if (name.startsWith(PARTIAL)) {
                partial.put(name.substring(PARTIAL.length()), copy(tensor));
            }
        });
        byte[] made = new byte[Math.toIntExact(tensors.get(SINK).elements())];
        tensors.get(SINK).bytes().direct().get(made);
        try (DataInputStream in = new DataInputStream(new ByteArrayInputStream(made))) {
            sink.restore(in);
        } catch (IOException e) {
            throw new IllegalArgumentException("what its sink made is cut off", e);
        }
        return new State(Integer.parseInt(content.values().get("next")), loss, gradients, partial);
    }

    /** Removes the file: the run is done, or begins anew. */
    void remove() {
        file.remove();
    }

    private static Tensor tensor(HostTensor tensor) {
        return Tensor.of(tensor.dtype(), tensor.shape(), Bytes.of(tensor.bytes()));
    }

    /** A copy that sums can be added to. */
    private static HostTensor copy(Tensor tensor) {
        HostTensor copy = HostTensor.zeros(tensor.dtype(), tensor.shape());
        copy.bytes().duplicate().put(tensor.bytes().direct());
        return copy;
    }
}
