// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

/**
 * A product of an activation with a constant matrix.
 *
 * @param node how messages name the application
 * @param weight the initializer that the matrix is; the matrix itself where it is computed from several constants
 * @param input x; linears that read the same values share it, whatever reshapes lie between
 * @param output y, before any bias
 */
public record LoweredLinear(String node, String weight, Activation input, Activation output) {}
