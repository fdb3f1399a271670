package io.onnxprune.calibrate;

import io.onnxprune.runtime.HostTensor;

/** Receives statistics as they are complete, segment by segment, and must have done with each when it returns. */
public interface TapSink {
    /**
     * Takes the sum over all rows.
     *
     * @param sum float32, in the shape that the tap says; the buffer is used again afterwards
     */
    void accept(Tap tap, HostTensor sum);
}
