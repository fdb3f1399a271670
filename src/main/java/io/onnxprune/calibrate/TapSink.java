// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.runtime.HostTensor;

/** Receives statistics when they are complete, segment by segment. A sum that the sink does not keep is freed. */
public interface TapSink {
    /**
     * Receives the sum of a tap over all rows.
     *
     * @param sum float32, in the shape of the tap
     */
    void accept(Tap tap, HostTensor sum);
}
