// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

/**
 * What importance is measured on, over rows of tokens. Nothing is run before it is asked for.
 *
 * @param gradients of the loss by weights
 * @param inputs what products with constant matrices read
 * @param similarities what residual blocks do to the stream
 */
public record Measurements(
        Taylor.Gradients gradients, LayerInputs inputs, BlockInfluence.Similarities similarities) {}
