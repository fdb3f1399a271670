// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import ai.onnxruntime.OrtSession.SessionOptions;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Model;
import java.nio.ByteBuffer;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;

/**
 * The sessions of a runtime that work in the memory of its device. Weights are inputs of such a session, so it serves
 * every model with the same graph, such as the same model after a correction. Sessions of small models are therefore
 * kept when they are closed: a new session of CUDA first makes the handles of its libraries, which takes longer than a
 * run of a small model. For a large model, the memory is worth more than that time.
 */
final class DeviceSessions implements AutoCloseable {
    /** The number of sessions that are kept. Each holds the memory of its last run. */
    private static final int LIMIT = 24;

    /** Most bytes of weights of a session that is kept. */
    private static final long MAX_BYTES = 1L << 28;

    private final OnnxRuntime runtime;
    private final Map<ByteBuffer, OrtSession> idle = new LinkedHashMap<>();

    DeviceSessions(OnnxRuntime runtime) {
        this.runtime = runtime;
    }

    /**
     * Opens a session.
     *
     * @param weights holds the weights of this and other sessions
     * @throws UserException when ONNX Runtime rejects the model, or the device has too little memory for the weights
     */
    Session open(Model model, DeviceWeights weights) {
        SuppliedModel.OfInputs parts = SuppliedModel.OfInputs.of(runtime.runnable(model));
        Map<String, DeviceTensor> copies = weights.acquire(parts.weights());
        OrtSession session = null;
        try {
            session = session(parts.graph());
            Binding binding = new Binding(
                    NativeApi.of(NativeLibrary.core()),
                    NativeHandle.of(session),
                    runtime.device().orElseThrow(),
                    runtime.options().device(),
                    copies);
            return new Session(runtime, session, binding, closed -> {
                weights.release(parts.weights().values());
                giveBack(parts, closed);
            });
        } catch (OrtException | NativeApi.Failure | UserException e) {
            weights.release(parts.weights().values());
            if (session != null) {
                close(session);
            }
            throw e instanceof UserException told
                    ? told
                    : Failures.onDevice("ONNX Runtime cannot load the model in memory", e);
        }
    }

    private OrtSession session(byte[] graph) throws OrtException {
        Optional<OrtSession> known = take(graph);
        if (known.isPresent()) {
            return known.get();
        }
        try (SessionOptions options = runtime.sessionOptions(true)) {
            return runtime.environment().createSession(graph, options);
        }
    }

    private synchronized Optional<OrtSession> take(byte[] graph) {
        return Optional.ofNullable(idle.remove(ByteBuffer.wrap(graph)));
    }

    /** Keeps a session, and closes the one that was given back first if there are too many. */
    private synchronized void giveBack(SuppliedModel.OfInputs parts, OrtSession session) {
        if (parts.bytes() > MAX_BYTES) {
            close(session);
            return;
        }
        OrtSession same = idle.put(ByteBuffer.wrap(parts.graph()), session);
        if (same != null) {
            close(same);
        }
        if (idle.size() > LIMIT) {
            Iterator<OrtSession> oldest = idle.values().iterator();
            OrtSession closed = oldest.next();
            oldest.remove();
            close(closed);
        }
    }

    private static void close(OrtSession session) {
        try {
            session.close();
        } catch (OrtException e) {
            throw OnnxRuntime.failure("ONNX Runtime cannot close a session", e);
        }
    }

    /** Closes the sessions that are kept. */
    @Override
    public synchronized void close() {
        idle.values().forEach(DeviceSessions::close);
        idle.clear();
    }
}
