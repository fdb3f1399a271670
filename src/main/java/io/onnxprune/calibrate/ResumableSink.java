// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import java.io.DataInput;
import java.io.DataOutput;
import java.io.IOException;

/** A gradient sink whose state can be saved, so that a stopped run can resume. */
public interface ResumableSink extends GradientSink {
    /** Writes the state after the gradients received so far. */
    void save(DataOutput out) throws IOException;

    /** Restores the state that {@link #save} wrote, in place of receiving the gradients again. */
    void restore(DataInput in) throws IOException;
}
