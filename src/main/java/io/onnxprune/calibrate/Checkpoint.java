// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.diag.Log;
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
 * A checkpoint of a backward pass: the state of its sink, and the gradients of the value between the finished segments
 * and those still to run.
 */
final class Checkpoint {
    private static final String GRADIENT = "gradient/";
    private static final String PARTIAL = "partial/";
    private static final String LOSS = "loss";
    private static final String SINK = "sink";

    private final CheckpointFile file;
    private final Path folder;
    private final long intervalNanos;
    private long last = System.nanoTime();

    /**
     * Creates a checkpoint of one run.
     *
     * @param file its file; the name identifies the run
     * @param seconds the least time between two saves
     */
    Checkpoint(Path file, double seconds) {
        this.file = new CheckpointFile(file);
        this.folder = file.getParent();
        this.intervalNanos = (long) (seconds * 1e9);
    }

    /**
     * The progress of a run.
     *
     * @param next index of the segment to run backward next
     * @param loss the loss of each row
     * @param gradients gradients of the output of that segment, for each batch
     * @param partial sums of initializers that segments still to run add to, by tap
     */
    @SuppressWarnings("ArrayRecordComponent") // bulk data, never compared
    record State(int next, double[] loss, List<HostTensor> gradients, Map<String, HostTensor> partial) {}

    /** Whether the next save is due. */
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
        byte[] sinkState = sinkState(sink);
        tensors.put(SINK, Tensor.of(DType.UINT8, new long[] {sinkState.length}, Bytes.of(ByteBuffer.wrap(sinkState))));
        file.save(new Content(Map.of("next", Integer.toString(state.next)), tensors));
        last = System.nanoTime();
    }

    private static byte[] sinkState(ResumableSink sink) {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        try (DataOutputStream out = new DataOutputStream(bytes)) {
            sink.save(out);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        return bytes.toByteArray();
    }

    /**
     * Loads the state of a stopped run and restores its sink; empty if there is none.
     *
     * @throws io.onnxprune.diag.UserException when the file is damaged
     */
    Optional<State> load(ResumableSink sink) {
        return file.load(content -> state(content, sink));
    }

    /**
     * Loads the state of a stopped run like {@link #load}, and logs how much of it is done.
     *
     * @param segments number of segments of the run
     * @return null to start from the beginning
     */
    State resumed(ResumableSink sink, int segments, Log log) {
        State saved = load(sink).orElse(null);
        log.info(
                saved == null
                        ? "nothing to resume in " + folder + "; calibration starts from the beginning"
                        : "calibration resumes: %d of %d segments are done"
                                .formatted(segments - saved.next - 1, segments));
        return saved;
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
        byte[] sinkState = new byte[Math.toIntExact(tensors.get(SINK).elements())];
        tensors.get(SINK).bytes().direct().get(sinkState);
        try (DataInputStream in = new DataInputStream(new ByteArrayInputStream(sinkState))) {
            sink.restore(in);
        } catch (IOException e) {
            throw new IllegalArgumentException("the state of its sink is truncated", e);
        }
        return new State(Integer.parseInt(content.values().get("next")), loss, gradients, partial);
    }

    /** Removes the file, because the run is done or starts from the beginning. */
    void remove() {
        file.remove();
    }

    private static Tensor tensor(HostTensor tensor) {
        return Tensor.of(tensor.dtype(), tensor.shape(), Bytes.of(tensor.bytes()));
    }

    /** A writable copy, so that further terms can be added. */
    private static HostTensor copy(Tensor tensor) {
        HostTensor copy = HostTensor.zeros(tensor.dtype(), tensor.shape());
        copy.bytes().duplicate().put(tensor.bytes().direct());
        return copy;
    }
}
