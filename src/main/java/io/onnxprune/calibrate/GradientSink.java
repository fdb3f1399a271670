// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

/** Receives the gradients of a model, one initializer at a time. Each initializer is passed exactly once. */
public interface GradientSink {
    /**
     * Receives the gradients of one initializer.
     *
     * @param initializer name in the model that is pruned
     * @param sums the gradients, which may be overwritten after the call
     */
    void accept(String initializer, GradientSums sums);
}
