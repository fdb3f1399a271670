// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

/**
 * A linear layer of the lowered model: a product of an activation with a constant matrix.
 *
 * @param node how messages name the operator application
 * @param weight the initializer that holds the matrix; the matrix itself where it is computed from several
 *     constants
 * @param input x; layers that use the same values share it, even with reshapes in between
 * @param output y, before any bias
 */
public record LoweredLinear(String node, String weight, Activation input, Activation output) {}
