// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import java.nio.FloatBuffer;

/** Takes the gradients of a model one initializer at a time; each is called for exactly once. */
public interface GradientSink {
    /**
     * Receives what the rows of the calibration data add up to. The buffers are the caller's again afterwards.
     *
     * @param initializer name in the model that is pruned
     * @param sum Σ over rows of the gradient of the row's mean loss, in the order of the initializer's elements
     * @param squares Σ over rows of the squares of that gradient, element by element; null unless asked for
     */
    void accept(String initializer, FloatBuffer sum, FloatBuffer squares);
}
