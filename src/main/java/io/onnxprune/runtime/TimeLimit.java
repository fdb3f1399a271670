// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession.RunOptions;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/** Ends a run of ONNX Runtime that takes too long, also one inside a loop; the node that computes is still completed. */
final class TimeLimit implements AutoCloseable {
    private final RunOptions options = new RunOptions();
    private final CompletableFuture<Void> expiry = new CompletableFuture<>();
    private final CompletableFuture<Void> termination;
    private boolean closed;

    TimeLimit(Duration limit) throws OrtException {
        termination = expiry.completeOnTimeout(null, limit.toMillis(), TimeUnit.MILLISECONDS)
                .thenRun(this::terminate);
    }

    private synchronized void terminate() {
        if (!closed) {
            try {
                options.setTerminate(true);
            } catch (OrtException e) {
                throw new IllegalStateException(e);
            }
        }
    }

    RunOptions options() {
        return options;
    }

    boolean expired() {
        return expiry.isDone() && !expiry.isCancelled();
    }

    @Override
    public synchronized void close() {
        closed = true;
        termination.cancel(false);
        expiry.cancel(false);
        options.close();
    }
}
