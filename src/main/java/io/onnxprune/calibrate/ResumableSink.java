// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import java.io.DataInput;
import java.io.DataOutput;
import java.io.IOException;

/** A sink that can put aside what it made of the gradients, so that a run that is stopped need not begin anew. */
public interface ResumableSink extends GradientSink {
    /** Writes what was made of the gradients so far. */
    void save(DataOutput out) throws IOException;

    /** Reads what {@link #save} wrote, in place of the calls that led there. */
    void restore(DataInput in) throws IOException;
}
