// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import io.onnxprune.diag.Log;
import io.onnxprune.pass.RunListener;

/** Is told what a run does: messages, progress within a stage, and which pass runs. */
public interface ProgressListener extends Log, RunListener {
    /** Discards everything. */
    ProgressListener NONE = of(Log.NONE);

    /** A listener that hands messages on to a log. */
    static ProgressListener of(Log log) {
        return new Messages(log);
    }

    /** Hands messages on to a log. */
    final class Messages extends Log.Forwarding implements ProgressListener {
        private Messages(Log log) {
            super(log);
        }
    }
}
