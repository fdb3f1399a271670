// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import java.nio.FloatBuffer;

/** Receives the gradients of a model, one initializer at a time. Each initializer is passed exactly once. */
public interface GradientSink {
    /**
     * Receives the gradients of one initializer, summed over the rows of the calibration data. The buffers may be
     * reused after the call.
     *
     * @param initializer name in the model that is pruned
     * @param sum Σ over rows of the gradient of the row's mean loss, in the order of the initializer's elements
     * @param squares Σ over rows of the elementwise squares of that gradient; null unless requested
     */
    void accept(String initializer, FloatBuffer sum, FloatBuffer squares);
}
