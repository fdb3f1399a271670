// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.runtime.HostTensor;

/** Receives statistics as they are complete, segment by segment; what it does not keep is freed. */
public interface TapSink {
    /**
     * Takes the sum over all rows.
     *
     * @param sum float32, in the shape that the tap says
     */
    void accept(Tap tap, HostTensor sum);
}
